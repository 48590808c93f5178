"""The blocks of code of the documentation."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from crossdim.cli import VERBS

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
#: Every text that people read before they type: the pages, and what lies at the top.
TEXTS = (*sorted(PAGES.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")))


def find_blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Language and content of each block in one of the languages, in order."""
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def find_commands(text: str) -> list[list[str]]:
    """Arguments of every command of ours in the blocks of a text, without the way it is reached."""
    lines = "".join(content for _, content in find_blocks(text, "sh"))
    found = re.findall(
        rf"(?:^|-- )(?:crossdim|python -m (?:pipelines|training)) ((?:{'|'.join(VERBS)})(?: .*)?)$", lines, re.MULTILINE
    )
    return [shlex.split(line, comments=True) for line in found]


def find_config_file() -> str:
    """The file ``run.yaml`` of the page about configuration, which commands of the page name."""
    [(_, file)] = find_blocks((PAGES / "guides/configuration.md").read_text(), "yaml")
    return file


def join_python(text: str) -> str:
    """All blocks of Python of a page as one program."""
    return "\n".join(content for _, content in find_blocks(text, "python"))
