"""Writes documents as YAML with a comment on each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

#: Comments begin at this column at the latest, unless a value reaches beyond.
MAX_COLUMN = 56


def write_yaml(document: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Write a document: one line for each value, lists in one line.

    Args:
        document: JSON values; objects may hold objects.
        comments: by path, such as ``set.optimizer.lr``; written behind the value.

    Returns:
        YAML that version 1.1 and 1.2 read alike.
    """
    rows = list(_write_rows(document, "", 0))
    column = min(MAX_COLUMN, max((len(text) for text, path in rows if comments.get(path)), default=0))
    lines = [f"{text:<{column}}  # {comments[path]}" if comments.get(path) else text for text, path in rows]
    return "\n".join(lines)


def _write_rows(document: Mapping[str, Any], above: str, depth: int) -> Iterator[tuple[str, str]]:
    for key, value in document.items():
        name = f"{'  ' * depth}{format_value(key)}:"
        if isinstance(value, Mapping) and value:
            yield name, f"{above}{key}"
            yield from _write_rows(value, f"{above}{key}.", depth + 1)
        else:
            yield f"{name} {format_value(value)}", f"{above}{key}"


def format_value(value: Any) -> str:
    """A value as YAML in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
