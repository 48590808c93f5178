"""ARCHITECTURE.md names modules, names and files that exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
DOTTED = sorted(set(re.findall(r"`((?:pipelines|training)\.[\w.]+)`", TEXT)))


@pytest.mark.parametrize("dotted", DOTTED)
def test_what_it_names_exists(dotted: str) -> None:
    parts = dotted.split(".")
    for end in range(len(parts), 1, -1):
        path = ROOT.joinpath(*parts[:end])
        if path.is_dir() or path.with_suffix(".py").exists():
            break
    module = importlib.import_module(".".join(["crossdim", *parts[:end]]))
    for name in parts[end:]:
        module = getattr(module, name)


def test_it_names_modules() -> None:
    assert len(DOTTED) > 15


def test_the_files_it_names_exist() -> None:
    folder = None
    table = TEXT.split("## Where to make a change")[1]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", table):
        path = ROOT / name if "/" in name else folder / name
        assert path.exists(), name
        folder = path.parent
