"""ARCHITECTURE.md says how many places a new part touches; the packages that add one of each in the tests are counted."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Each part: the package that adds it, its file, and the name that other files use.
PARTS = {
    "reader": ("pipelines/outside/my_lab", "flat.py", "flat"),
    "stage": ("pipelines/outside/my_lab", "negative.py", "NegativeStage"),
    "method": ("training/outside/net_lab", "gamma_restoration.py", "GammaRestoration"),
    "backbone": ("training/outside/net_lab", "slim.py", "SlimSettings"),
    "augmentation": ("training/outside/net_lab", "gamma.py", "random_gamma"),
    "export": ("training/outside/net_lab", "export.py", "export_program"),
}


def _recipes(tree: ast.Module) -> set[ast.AST]:
    """Everything inside of functions of a module: the recipes, which are what uses a part."""
    return {inner for node in tree.body if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}


def _count_uses(file: Path, name: str) -> int:
    """Lines of a file that use a name, apart from its import and from recipes."""
    tree = ast.parse(file.read_text())
    skipped = _recipes(tree)
    return len({node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name and node not in skipped})


@pytest.mark.parametrize("part", PARTS)
def test_a_new_part_touches_as_many_places_as_the_table_says(part: str) -> None:
    package, own, name = PARTS[part]
    folder = ROOT / "tests" / package
    assert (folder / own).exists()
    stated = re.search(rf"^\| {part} \| (\d+) \| (\d+) \|", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
    uses = sum(_count_uses(file, name) for file in folder.glob("*.py") if file.name != own)
    assert stated is not None
    assert (1, uses) == (int(stated[1]), int(stated[2]))
