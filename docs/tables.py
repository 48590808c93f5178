"""Tables of Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`[^`]*`)")


def code(text: str) -> str:
    """A text as code, in a cell."""
    return f"`{text}`" if text else ""


def format_markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format rows as lines of a table; a bar in a cell is escaped, but not in code, where the backslash would be shown.

    Args:
        head: names of the columns.
        rows: cells, as many as there are columns.

    Returns:
        The lines.
    """
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(_write_cell(cell) for cell in row) for row in rows]
    return [f"| {line} |" for line in lines]


def _write_cell(text: str) -> str:
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if number % 2 else part.replace("|", "\\|") for number, part in enumerate(parts))
