"""Renders pages and Markdown from templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from crossdim.storage_schema.names import printable

BASE = Path(__file__).with_name("base.html")
#: Where the page of a dataset lies, beside its manifest.
DATASET_PAGE = "dataset.html"
#: By these a page of ours is told from other files.
PAGE_HEAD_BYTES, _MARK = 400, b"<title>crossdim: "
#: Control characters that documents need; others, of names and labels, are escaped.
_KEPT = "\n\t"


def is_page(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a page that :func:`render_page` made."""
    return head.startswith(b"<!doctype html>") and _MARK in head


def render_page(template: Path, **values: Any) -> bytes:
    """Render a page.

    Args:
        template: an HTML file that extends ``base.html``.
        **values: of the names in the template; every text is escaped.

    Returns:
        HTML in UTF-8.
    """
    loader = jinja2.ChoiceLoader([jinja2.FileSystemLoader(template.parent), jinja2.FileSystemLoader(BASE.parent)])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader, trim_blocks=True)
    environment.filters["count"] = format_count
    return printable(environment.get_template(template.name).render(**values), keep=_KEPT).encode()


def format_count(number: int, noun: str) -> str:
    """A number and its noun, such as ``1 file`` and ``2,000 files``.

    Args:
        number: how many.
        noun: in the singular.

    Returns:
        The text.
    """
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def render_markdown(template: Path, **values: Any) -> bytes:
    """Render a Markdown document.

    Args:
        template: a Markdown file.
        **values: of the names in the template; ``cell`` escapes a text for a table.

    Returns:
        Markdown in UTF-8.
    """
    environment = jinja2.Environment(
        autoescape=False,  # no HTML; texts of others go through cell
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = escape_cell
    return printable(environment.from_string(template.read_text()).render(**values), keep=_KEPT).encode()


def escape_cell(value: object) -> str:
    """A text as one cell of a Markdown table, without markup of its own."""
    text = " ".join(str(value).split())
    for mark in "\\`*_{}[]<>|#":
        text = text.replace(mark, f"\\{mark}")
    return text
