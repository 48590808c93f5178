"""Lists every setting of a configuration with its value, type, unit and meaning."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from crossdim.foundation.setting_meanings import Meaning, read_meanings
from crossdim.foundation.settings import KIND, Families, to_document

#: Of a column; longer cells move what follows.
MAX_WIDTH = 64
_NAMES = {int: "int", float: "float", bool: "bool", str: "text", dict: "object"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting of a configuration.

    Attributes:
        path: as ``--set`` takes it, such as ``optimizer.lr``.
        value: as JSON values; of a member of a family its kind, and None for a group.
        type: in words, such as ``int`` or ``3 floats``.
        meaning: and its unit.
        is_group: whether it only holds other settings.
        is_member: whether it holds other settings, and is of a family.
    """

    path: str
    value: Any
    type: str
    meaning: Meaning
    is_group: bool = False
    is_member: bool = False

    @property
    def cells(self) -> list[str]:
        """Path, value, unit, type and meaning, for a table."""
        if self.is_group:
            return [self.path, "", "", "", self.meaning.line]
        return [self.path, json.dumps(self.value, ensure_ascii=False), self.meaning.unit, self.type, self.meaning.line]

    @property
    def comment(self) -> str:
        """The meaning and the unit."""
        return f"{self.meaning.line} ({self.meaning.unit})" if self.meaning.unit else self.meaning.line

    def document(self) -> dict[str, Any]:
        """The setting as JSON values."""
        about = {"type": self.type, "unit": self.meaning.unit, "meaning": self.meaning.text}
        return {"path": self.path, "value": self.value, **about}


def list_settings(config: Any, families: Families) -> list[Setting]:
    """List every setting of a configuration, groups before what they hold.

    Args:
        config: dataclass of settings.
        families: for each field type that is a family, its members by name.

    Returns:
        The settings in the order of their fields.
    """
    return list(_walk(config, "", families))


def _walk(config: Any, above: str, families: Families) -> Iterator[Setting]:
    hints, meanings = typing.get_type_hints(type(config)), read_meanings(type(config))
    for field in fields(config):
        value, path = getattr(config, field.name), f"{above}{field.name}"
        holds_settings = is_dataclass(value)
        is_group = holds_settings and getattr(value, KIND, None) is None
        shown = getattr(value, KIND, None) if holds_settings else to_document(value)
        meaning = meanings.get(field.name, Meaning(text=""))
        words = "group" if is_group else describe_type(hints[field.name], families)
        yield Setting(
            path=path, value=shown, type=words, meaning=meaning, is_group=is_group, is_member=holds_settings and not is_group
        )
        if holds_settings:
            yield from _walk(value, f"{path}.", families)


def describe_type(kind: Any, families: Families) -> str:
    """Describe the type of a setting in words.

    Args:
        kind: annotation of its field.
        families: for each field type that is a family, its members by name.

    Returns:
        Such as ``int or null``, ``pad | drop`` or ``3 ints``.
    """
    if kind in families:
        return " | ".join(families[kind])
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        words = [describe_type(each, families) for each in arguments if each is not type(None)]
        return " or ".join([*words, "null"] if type(None) in arguments else words)
    if origin is typing.Literal:
        return " | ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in arguments)
    if origin is tuple:
        inner = describe_type(arguments[0], families)
        inner = f"[{inner}]" if " " in inner else inner
        return f"list of {inner}" if arguments[-1] is Ellipsis else f"{len(arguments)} x {inner}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " | ".join(str(member.value) for member in kind)
    return str(getattr(kind, KIND, None) or _NAMES.get(origin or kind) or getattr(kind, "__name__", kind))


def format_table(rows: Sequence[Sequence[str]], alignment: str = "") -> list[str]:
    """Format rows as lines with aligned columns.

    Args:
        rows: of equal length, the head first.
        alignment: ``l`` or ``r`` for each column; left by default.

    Returns:
        One line for each row.
    """
    widths = [min(MAX_WIDTH, max(len(row[at]) for row in rows)) for at in range(len(rows[0]))]
    sides = alignment or "l" * len(widths)
    return [
        "  ".join(
            cell.rjust(width) if side == "r" else cell.ljust(width) for cell, width, side in zip(row, widths, sides, strict=True)
        ).rstrip()
        for row in rows
    ]
