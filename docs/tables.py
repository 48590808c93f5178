"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def code(text: str) -> str:
    """A text as code, in a cell."""
    return f"`{text}`" if text else ""


def format_markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format rows as lines of a table; a bar inside a cell is escaped.

    Args:
        head: names of the columns.
        rows: cells, as many as there are columns.

    Returns:
        The lines.
    """
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {line} |" for line in lines]
