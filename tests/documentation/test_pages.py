"""Pages of the documentation are held to the code: commands, programs, links, files and names in them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import crossdim
from crossdim.cli import VERBS
from crossdim.foundation.config_parsing import parse_with_config
from crossdim.foundation.references import is_reference
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.recipes import RECIPES as PREPARE_RECIPES
from crossdim.recipe_finder import find_recipe
from crossdim.recipe_text import describe_recipe
from crossdim.training.recipes import RECIPES as PRETRAIN_RECIPES
from crossdim.training.studies import STUDIES
from docs.commands import find_parser, write_commands
from docs.links import REPOSITORY_PAGES, find_links, turn_links
from docs.pictures import MAX_BYTES
from docs.reference import write_python
from docs.settings import write_settings
from docs.tables import format_markdown_table
from tests.documentation.blocks import PAGES, ROOT, TEXTS, find_blocks, find_commands, find_config_file, join_python

KNOWN = {*PREPARE_RECIPES, *PRETRAIN_RECIPES}
COMMANDS = [arguments for path in TEXTS for arguments in find_commands(path.read_text())]
#: Those in the comments of the file for AWS.
OF_CLUSTER_FILE = [
    shlex.split(line) for line in re.findall(r"-- python -m (?:pipelines|training) (.*)", (ROOT / "ray_cluster.yaml").read_text())
]
NAMES = [str(path.relative_to(ROOT)) for path in TEXTS]
OPTIONS = {option for verb in VERBS for action in find_parser(verb)._actions for option in action.option_strings}
OPTIONS_OF_OTHERS = {"--strict"}  # mypy's
SETTINGS = {one["path"] for name in KNOWN for one in describe_recipe(find_recipe(name))[0]["settings"]}


@pytest.mark.parametrize("arguments", [*COMMANDS, *OF_CLUSTER_FILE], ids=" ".join)
def test_every_command_is_understood_by_its_verb(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pipelines", "training"):  # the packages whose recipes the guide names
        monkeypatch.syspath_prepend(str(ROOT / "tests" / package / "outside"))
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(find_config_file())
    build = importlib.import_module(f"crossdim.{VERBS[arguments[0]][0]}").build_parser
    parsed = parse_with_config(build, arguments).arguments if "--config" in arguments else build().parse_args(arguments)
    recipe = getattr(parsed, "recipe", None)
    assert recipe is None or recipe in KNOWN or is_reference(recipe)


def test_every_verb_and_every_study_is_shown() -> None:
    assert {line[0] for line in COMMANDS} == set(VERBS)
    assert {line[1] for line in COMMANDS if line[0] == "study"} == set(STUDIES)
    assert len(OF_CLUSTER_FILE) == 2


def test_recipes_in_the_table_exist() -> None:
    page = (PAGES / "guides/configuration.md").read_text()
    table = re.findall(r"^\| `([a-z0-9-]+)` \| (prepare|pretrain) \|", page, re.MULTILINE)
    assert {name for name, _ in table} == {name for name in KNOWN if ":" not in name}


def test_the_page_of_formats_names_every_reader_and_ending() -> None:
    page = (PAGES / "guides/file-formats.md").read_text()
    endings = {ending for reader in READERS.values() for ending in reader.suffixes}
    assert set(re.findall(r"`(\.\w+(?:\.gz)?)`", page)) >= endings
    assert [reader.format_name for reader in READERS.values() if reader.format_name.lower() not in page.lower()] == []


def test_every_line_that_names_the_program_is_looked_at() -> None:
    """A verb that is misspelt would be no command of ours, and pass unseen."""
    lines = [line for path in TEXTS for _, block in find_blocks(path.read_text(), "sh") for line in block.splitlines()]
    ours = [line for line in lines if re.search(r"^crossdim\b|-m (pipelines|training)\b", line)]
    assert len(ours) == len(COMMANDS) > 30


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_python_compiles(path: Path) -> None:
    for _, block in find_blocks(path.read_text(), "python"):
        compile(block, str(path), "exec")


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_links_lead_to_files(path: Path) -> None:
    """In the repository; ``mkdocs build --strict`` says the same of the site."""
    targets = [target.partition("#")[0] for target in find_links(path.read_text()) if "://" not in target]
    assert [target for target in targets if target and not (path.parent / target).exists()] == []


def test_a_link_to_a_file_of_the_repository_becomes_one_to_its_page() -> None:
    text = "[a](../../../storage_schema/README.md#catalog) [b](../../../ray_cluster.yaml) [c](../index.md)\n```\n[d](x.md)\n```\n"
    turned = turn_links(text, "guides/dataset-format.md")
    assert turned == "[a](../repository/storage_schema/README.md#catalog) b [c](../index.md)\n```\n[d](x.md)\n```\n"
    assert turn_links("[a](../ARCHITECTURE.md)", "repository/training/README.md") == "[a](../ARCHITECTURE.md)"
    assert turn_links("[a](README.md)", "repository/CONTRIBUTING.md") == "[a](../index.md)"
    assert turn_links("[a](docs/pages/guides/storage.md) [b](SECURITY.md)", "index.md") == (
        "[a](guides/storage.md) [b](repository/SECURITY.md)"
    )
    assert all((ROOT / path).exists() for path in REPOSITORY_PAGES)


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_files_that_are_named_exist(path: Path) -> None:
    folders = "crossdim|foundation|pipelines|storage_schema|training|tests|examples|deploy|docs|benchmarks"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", path.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_options_and_settings_that_are_named_exist(path: Path) -> None:
    """Between backticks, in sentences and tables; those of blocks are read by the parsers."""
    sentences = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    named = " ".join(re.findall(r"`[^`\n]+`", sentences))
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", named)) - OPTIONS <= OPTIONS_OF_OTHERS
    assert set(re.findall(r"--set '?([a-z]\w*(?:\.\w+)+)=", path.read_text())) <= SETTINGS


def test_targets_extras_and_modules_exist() -> None:
    blocks = "".join(block for path in TEXTS for _, block in find_blocks(path.read_text(), "sh"))
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets, modules = re.findall(r"^make (\w+)", blocks, re.MULTILINE), re.findall(r"python -m (benchmarks\.\w+)", blocks)
    assert targets
    assert modules
    assert [name for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    asked = {name for group in re.findall(r"pip install '\.\[([\w,]+)\]'", blocks) for name in group.split(",")}
    assert asked
    assert asked <= set(extras)


def test_the_table_of_parts_is_that_of_the_architecture() -> None:
    rows = re.compile(r"^\| (\w+) \| (\d) \| (\d) \|", re.MULTILINE)
    ours = rows.findall((PAGES / "guides/adding-parts.md").read_text())
    theirs = rows.findall((ROOT / "ARCHITECTURE.md").read_text())
    assert theirs
    assert set(theirs) <= set(ours)


def test_the_reference_has_every_verb_option_recipe_setting_and_name() -> None:
    commands, settings, python = write_commands(), write_settings(), write_python()
    for verb in VERBS:
        assert f"## {verb}\n" in commands
        options = [option for action in find_parser(verb)._actions for option in action.option_strings if option.startswith("--")]
        assert [o for o in options if f"`{o}" not in commands and not o.startswith(("--no-", "--help"))] == []
    for name in KNOWN:
        assert f"## {name}\n" in settings
    document, _ = describe_recipe(find_recipe("cdssl-p3d"))
    assert [one["path"] for one in document["settings"] if f"`{one['path']}` | `" not in settings] == []
    assert [name for name in crossdim.__all__ if f"## {name}\n" not in python] == []


def test_bars_of_a_table_are_escaped_outside_of_code() -> None:
    rows = [("`x | y`", "p | q"), ("a|b", "`a|b` | `c`")]
    assert format_markdown_table(("one", "two"), rows)[2:] == ["| `x | y` | p \\| q |", "| a\\|b | `a|b` \\| `c` |"]


def test_the_reference_is_spelled_as_the_code_is() -> None:
    """Argparse doubles percent signs, and postponed annotations are texts in quotes."""
    assert "such as 25%,50%" in write_commands()
    assert (
        "crossdim.open(url: str | PathLike[str], split: Literal['train', 'test'] | None = 'train', *, version: int |"
        in write_python()
    )


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


def test_pictures_are_small_and_the_readme_shows_them() -> None:
    pictures = sorted((PAGES / "pictures").iterdir())
    assert [path.name for path in pictures] == ["dataset.png", "run.png"]
    for path in pictures:
        assert path.stat().st_size <= MAX_BYTES
        with Image.open(path) as picture:
            assert picture.size[0] >= 800
        assert f"(docs/pages/pictures/{path.name})" in (ROOT / "README.md").read_text()
        assert f"(pictures/{path.name})" in turn_links((ROOT / "README.md").read_text(), "index.md")


@pytest.mark.integration
@pytest.mark.parametrize("name", ["guides/adding-parts.md", "methods/cross-d.md"])
def test_programs_of_a_page_run(name: str, tmp_path: Path) -> None:
    """As modules, in the order in which they stand."""
    program = tmp_path / "program.py"
    program.write_text(join_python((PAGES / name).read_text()))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, str(program)], check=True, cwd=tmp_path, env=environment, timeout=240)
