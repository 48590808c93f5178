"""Links of the documentation: in the repository they lead to files, in the site to the pages made of them.

A link to a file that has no page becomes plain text, which in the site is all that it can be.
"""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

PAGES = PurePosixPath("docs/pages")
#: Files of the repository that are pages of the site.
REPOSITORY_PAGES = (
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "deploy/README.md",
    "examples/README.md",
    "foundation/README.md",
    "pipelines/README.md",
    "storage_schema/README.md",
    "tests/README.md",
    "training/README.md",
    "training/recipes/LOG.md",
)
_FOLDER = PurePosixPath("repository")
#: The README is the first page of the site.
_FRONT = ("README.md", "index.md")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)


def page_of(path: str) -> str:
    """The page of the site that a file of the repository becomes."""
    source, page = _FRONT
    return page if path == source else str(_FOLDER / path)


def source_of(page: str) -> PurePosixPath:
    """The file of the repository that a page of the site was made of."""
    source, front = _FRONT
    path = PurePosixPath(page)
    if page == front:
        return PurePosixPath(source)
    return path.relative_to(_FOLDER) if path.is_relative_to(_FOLDER) else PAGES / path


def find_links(markdown: str) -> list[str]:
    """The targets of all links of a text, those in blocks of code apart."""
    return [found[3] for found in _LINK.finditer(_FENCE.sub("", markdown))]


def turn_links(markdown: str, page: str) -> str:
    """Turn the links of a page to files of the repository into links to the pages made of them.

    Args:
        markdown: text of the page, with links as they are in the repository.
        page: path of the page in the site.

    Returns:
        The text with links of the site; what has no page is left as text.
    """
    parts = _FENCE.split(markdown)
    return "".join(part if number % 2 else _LINK.sub(lambda found: _turn(found, page), part) for number, part in enumerate(parts))


def _turn(found: re.Match[str], page: str) -> str:
    exclamation, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if not path or "://" in target or target.startswith("mailto:"):
        return found[0]
    source = PurePosixPath(os.path.normpath(source_of(page).parent / path))
    if source.is_relative_to(PAGES):
        there = str(source.relative_to(PAGES))
    elif str(source) in REPOSITORY_PAGES:
        there = page_of(str(source))
    else:
        return text
    turned = os.path.relpath(there, PurePosixPath(page).parent)
    return f"{exclamation}[{text}]({turned}{'#' if anchor else ''}{anchor})"
