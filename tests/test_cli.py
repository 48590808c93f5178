"""The command line: each verb is passed to its package, and help does not wait for Ray."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from crossdim import __version__, cli
from crossdim.pipelines import recipe_names as of_prepare
from crossdim.training import recipe_names as of_pretrain

ROOT = Path(cli.__file__).parents[1]


@pytest.mark.parametrize("line", ["--help", "--version", "recipes"])
def test_an_output_that_is_closed_is_a_failure_and_no_fault(line: str) -> None:
    done = subprocess.run(
        f"exec {sys.executable} -m crossdim {line} >&-", shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (2, False, False)


def shell(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["prepaer"]])
def test_nothing_heavy_is_imported_for_a_page_of_help(argv):
    """Ray alone takes a second to import; the 0.7 s that help may take are held in the benchmarks."""
    heavy = ("ray", "torch", "pandas", "numpy", "pyarrow", "fsspec")
    done = shell(
        f"import sys; from crossdim import __version__, cli; cli.main({argv}); print([m for m in {heavy} if m in sys.modules])"
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), (["-h"], 0), ([], 1), (["--version"], 0)])
def test_help(argv, code, capsys):
    """No argument at all is wrong use, but is answered with the same page."""
    assert cli.main(argv) == code
    assert "crossdim" in capsys.readouterr().out


def test_help_names_every_verb(capsys):
    """A verb that is not on it does not exist for a user."""
    cli.main(["--help"])
    shown = capsys.readouterr().out

    assert all(f"  {verb}" in shown for verb in cli.VERBS)


def test_an_unknown_verb_is_answered_with_the_nearest(capsys):
    """Exit code 1, one line, on the error stream."""
    assert cli.main(["pretrian", "--help"]) == 1
    shown = capsys.readouterr()

    assert shown.err.startswith("error: unknown verb 'pretrian'; did you mean pretrain")
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_verb_is_passed_to_its_package_with_its_arguments(monkeypatch):
    """The verb stays in front: a package has several."""
    seen = {}

    class Package:
        @staticmethod
        def main(argv):
            seen["argv"] = argv
            return 3

    monkeypatch.setitem(sys.modules, "crossdim.pipelines.cli", Package)

    assert cli.main(["verify", "s3://lab", "--json"]) == 3
    assert seen["argv"] == ["verify", "s3://lab", "--json"]


@pytest.mark.parametrize("line", [["help"], ["--version"], ["show", "--help"]], ids=" ".join)
def test_help_that_cannot_be_written_is_a_failure(line):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "crossdim", *line], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_version_in_both_places():
    """In pyproject.toml and in the package."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


@pytest.mark.parametrize("package", ["pipelines", "training", "crossdim"])
def test_packages_run_as_modules_from_the_top_of_the_repository(package):
    """With nothing on the path but the current folder."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, "-m", package, "--help"]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert "crossdim" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        ["prepare", "raw", "--recipe", "xray-pseudo3d", "--out", "out", "--label-colum", "finding"],
        ["pretrain", "--recipe", "maesil:tiny", "--data", "set", "--out", "run", "--step", "2"],
    ],
)
def test_an_option_is_not_abbreviated(line, capsys):
    """A misspelt option that happens to begin like one would be taken for it."""
    with pytest.raises(SystemExit) as exit_code:
        cli.main(line)
    assert exit_code.value.code == 1
    assert "unrecognized arguments: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["pretrain", "--dta", "x"], "unrecognized arguments: --dta (did you mean --data?)."),
        (["prepare", "raw", "--label-colum=a", "--zzzz"], "--label-colum (did you mean --label-column?), --zzzz."),
        (["evaluate", "run", "--data", "x", "--fold", "3"], "--fold (did you mean --folds?)."),
    ],
    ids=["missing ones too", "with a value", "alone"],
)
def test_the_nearest_option_is_named(line, told, capsys):
    """Also where others are missing: the misspelt one is why."""
    with pytest.raises(SystemExit):
        cli.main(line)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(cli.OTHER_NAMES))
def test_other_names_of_what_verbs_do_lead_to_them(verb, capsys):
    assert cli.main([verb, "x"]) == 1
    assert f"unknown verb {verb!r}; {cli.OTHER_NAMES[verb]}. See crossdim --help" in capsys.readouterr().err
    assert verb not in cli.VERBS


#: Ends by a signal while Python shuts down, as a native thread that waits for the interpreter does.
ABORTING = """
import os, sys

class Aborting:
    def __del__(self):
        os.abort()

left = Aborting()
sys.argv = ["crossdim", *{arguments}]
from crossdim.cli import main
sys.exit(main())
"""


@pytest.mark.integration
@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["status", "nowhere"], 2), (["prepaer"], 1)])
def test_the_exit_code_is_that_of_the_verb_whatever_happens_at_the_end(arguments, code):
    done = shell(ABORTING.format(arguments=arguments))
    assert done.returncode == code, done.stderr
    assert (done.stdout + done.stderr).endswith("\n")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_shows_examples_that_the_verb_understands(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["help", verb])
    text = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        cli.main([verb, "--help"])
    assert capsys.readouterr().out == text
    examples = [shlex.split(line) for line in text.partition("\nexamples:\n")[2].splitlines() if line.startswith("  crossdim ")]
    assert len(examples) == 2
    module, _ = cli.VERBS[verb]
    build = importlib.import_module(f"crossdim.{module}").build_parser
    names = (*of_prepare.RECIPE_NAMES, *of_pretrain.RECIPE_NAMES)
    for _, *arguments in examples:
        parsed = build().parse_args(arguments)
        assert getattr(parsed, "recipe", None) in {None, *names}


@pytest.mark.parametrize("package", ["pipelines", "training"])
def test_help_names_every_recipe(package: str, capsys: pytest.CaptureFixture[str]) -> None:
    recipes = importlib.import_module(f"crossdim.{package}.recipes").RECIPES
    assert tuple(recipes) == importlib.import_module(f"crossdim.{package}.recipe_names").RECIPE_NAMES
    verb = {"pipelines": "prepare", "training": "pretrain"}[package]
    with pytest.raises(SystemExit):
        cli.main(["help", verb])
    text = capsys.readouterr().out
    assert all(re.search(rf"(?<!\S){re.escape(name)}(,|$)", text, re.MULTILINE) for name in recipes)
