"""The JSON schema (draft 2020-12) of a configuration, for editors; its descriptions are the meanings of the settings."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from crossdim.foundation.setting_meanings import read_meanings
from crossdim.foundation.settings import KIND, Families, to_document

Schema = dict[str, Any]
_PLAIN: dict[Any, Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    dict: {"type": "object"},
}


def build_settings_schema(kind: Any, families: Families, config: Any = None) -> Schema:
    """Build the schema of a dataclass of settings. None is required: what is left out stays as the recipe has it.

    Args:
        kind: the dataclass.
        families: for each field type that is a family, its members by name.
        config: a configuration, whose values become the defaults; None for a schema without defaults.

    Returns:
        The schema of an object.
    """
    hints, meanings = typing.get_type_hints(kind), read_meanings(kind)
    properties: dict[str, Schema] = {}
    if (name := getattr(kind, KIND, None)) is not None:
        properties[KIND] = {"const": name}
    for field in fields(kind):
        value = getattr(config, field.name, None)
        schema = _build(hints[field.name], families, value)
        if meaning := meanings.get(field.name):
            unit = f" ({meaning.unit})" if meaning.unit else ""
            schema["description"] = meaning.text + unit
        if config is not None and not is_dataclass(value):
            schema["default"] = to_document(value)
        properties[field.name] = schema
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _build(kind: Any, families: Families, value: Any) -> Schema:
    if kind in families:
        members = families[kind].items()
        return {"anyOf": [_build(member, families, value if type(value) is member else None) for _, member in members]}
    if is_dataclass(kind):
        return build_settings_schema(kind, families, value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if each is type(None) else _build(each, families, value) for each in arguments]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return {"type": "array", "items": _build(arguments[0], families, None)}
        items = [_build(each, families, None) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    return dict(_PLAIN.get(origin or kind, {}))
