"""Every block of the documentation is run by a test, or named with the reason why not."""

from __future__ import annotations

import re

import pytest

from tests.documentation.blocks import ROOT
from tests.documentation.command_lines import (
    NOT_TYPED,
    PROGRAMS_TYPED,
    SILENT,
    TEXTS,
    find_all_blocks,
    find_command_lines,
    holds_commands,
    is_typed,
)
from tests.documentation.test_command_lines import TYPED

NAMES = [str(path.relative_to(ROOT)) for path in TEXTS]
#: Typed into a terminal by tests of their own.
IN_JOURNEYS = ("docs/pages/journeys/own-files.md", "docs/pages/journeys/cluster.md")
#: Texts with blocks of Python, and what runs them.
PYTHON = {
    "README.md": "tests/system/test_readme.py",
    "docs/pages/guides/adding-parts.md": "tests/documentation/test_pages.py",
    "docs/pages/methods/cross-d.md": "tests/documentation/test_pages.py",
    "docs/pages/journeys/own-files.md": "tests/documentation/recordings.py",
    "docs/pages/journeys/own-loop.md": "tests/documentation/recordings.py",
    "storage_schema/README.md": "tests/storage_schema/test_specification.py",
    "training/README.md": "tests/training/test_readme.py",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_is_typed_by_a_test_or_named(name: str) -> None:
    lines = find_command_lines((ROOT / name).read_text())
    unknown = [
        line
        for line in lines
        if not line.startswith(tuple(f"{program} " for program in PROGRAMS_TYPED))
        and line not in ("crossdim recipes", "crossdim doctor")
    ]
    assert unknown == [], "programs that no test knows"
    typed = [line for line in lines if is_typed(line)]
    assert typed == [] or name in {*TYPED, *IN_JOURNEYS}, "lines that no test types"


def test_every_text_that_is_typed_has_lines() -> None:
    for name in TYPED:
        assert any(is_typed(line) for line in find_command_lines((ROOT / name).read_text())), name


@pytest.mark.parametrize("beginning", NOT_TYPED)
def test_every_exception_is_still_needed(beginning: str) -> None:
    assert any(line.startswith(beginning) for path in TEXTS for line in find_command_lines(path.read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_python_belongs_to_a_test(name: str) -> None:
    has_python = "```python\n" in (ROOT / name).read_text()
    assert has_python == (name in PYTHON)
    assert not has_python or name.rpartition("/")[2] in (ROOT / PYTHON[name]).read_text()


@pytest.mark.parametrize("name", NAMES)
def test_no_block_hides_commands(name: str) -> None:
    """Under another language, or below a line that is none."""
    begins = re.compile(rf"^(?:{'|'.join(PROGRAMS_TYPED)}) .*", re.MULTILINE)
    blocks = find_all_blocks((ROOT / name).read_text())
    assert {language for language, _ in blocks} <= {"", "sh", "python", *SILENT}
    rest = [block for language, block in blocks if not holds_commands(language, block) and language not in ("python", "console")]
    assert [line for block in rest for line in begins.findall(block)] == []
