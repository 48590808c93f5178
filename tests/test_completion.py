"""``crossdim completion``: a shell that reads the script completes verbs, options, names of recipes and files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from crossdim import cli
from crossdim.completion_cli import SHELLS, build_whole_parser
from crossdim.foundation.config_options import find_verb
from crossdim.pipelines.recipe_names import RECIPE_NAMES as OF_PREPARE
from crossdim.training.recipe_names import RECIPE_NAMES as OF_PRETRAIN
from crossdim.training.study_subjects import STUDY_SUBJECTS


def _write_script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


@pytest.fixture
def complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What bash offers for the last of some words."""
    script = tmp_path / "script.bash"
    script.write_text(_write_script("bash", capsys))
    (tmp_path / "run.yaml").touch()

    def complete(*words: str) -> set[str]:
        line = f'source {script}; COMP_WORDS=(crossdim "$@"); COMP_CWORD=$#; _shtab_crossdim; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(
            ["bash", "-c", line, "bash", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stderr == ""
        return {one.strip() for one in done.stdout.splitlines()} - {""}

    return complete


def test_verbs_are_completed(complete) -> None:
    assert complete("pre") == {"prepare", "pretrain"}
    assert complete("") >= set(cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_option_of_a_verb_is_completed(verb: str, complete) -> None:
    options = {one for action in find_verb(build_whole_parser("bash"), verb)._actions for one in action.option_strings}
    assert complete(verb, "--") == {one for one in options if one.startswith("--")}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["prepare", "--recipe", ""], OF_PREPARE),
        (["pretrain", "--recipe", ""], OF_PRETRAIN),
        (["pretrain", "--recipe", "maesil:"], ["maesil:small", "maesil:tiny"]),
        (["study", ""], STUDY_SUBJECTS),
        (["recipes", "cdssl"], ["cdssl-p3d", "cdssl-p3d:paper", "cdssl-p3d:tiny"]),
        (["prepare", "--burned-in", ""], ["keep", "refuse"]),
        (["pretrain", "--config", "ru"], ["run.yaml"]),
        (["completion", ""], SHELLS),
        (["runs", "r"], ["rm", "run.yaml"]),
        (["runs", "rm", "ru"], ["run.yaml"]),
    ],
)
def test_names_and_files_are_completed(words: list[str], names: list[str], complete) -> None:
    assert complete(*words) == set(names)


@pytest.mark.parametrize("shell", SHELLS)
def test_removal_of_runs_is_completed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of zsh and fish, which need not be installed, by what they read."""
    expected = {"bash": "compgen -W rm", "zsh": "'words:word:(rm)'", "fish": "(echo rm;"}
    assert expected[shell] in _write_script(shell, capsys)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_every_verb_and_its_help(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = _write_script(shell, capsys)
    assert all(re.search(rf"\b{verb}\b", text) for verb in cli.VERBS)
    assert all(option in text for option in ("print-config", "checkpoint-every", "salt-file"))
    assert (r" cdssl-p3d\:tiny " if shell == "zsh" else " cdssl-p3d:tiny ") in text.replace('"', " ")


def test_another_shell_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        cli.main(["completion", "basch"])
    assert "bash" in capsys.readouterr().err
