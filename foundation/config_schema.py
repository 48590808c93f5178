"""The JSON schema of a file of ``--config``, for editors: the options of a verb, and under ``set`` the settings of a recipe."""

from __future__ import annotations

import argparse
from typing import Any

from crossdim.foundation.config_options import AppendSetting, list_options

Schema = dict[str, Any]


def build_file_schema(verb: argparse.ArgumentParser, settings: Schema, title: str) -> Schema:
    """Build the schema of a file.

    Args:
        verb: parser of the verb.
        settings: the schema of the recipe's settings.
        title: of the schema.

    Returns:
        A schema in draft 2020-12. Nothing is required, since the command line may give it.
    """
    dotted: Schema = {"patternProperties": {r"\.": {}}}  # a path such as optimizer.lr
    properties = {
        key: settings | dotted if isinstance(action, AppendSetting) and action.path is None else _describe_option(action)
        for key, action in list_options(verb).items()
    }
    draft = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": draft, "title": title, "type": "object", "properties": properties, "additionalProperties": False}


def _describe_option(action: argparse.Action) -> Schema:
    one = _describe_value(action)
    takes_list = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
    bare = [{"const": True}] if action.nargs == "?" and action.option_strings else []
    several = [{"type": "array", "items": one}] if takes_list else []
    return {"anyOf": [one, *bare, *several, {"type": "null"}], "description": action.help or ""}


def _describe_value(action: argparse.Action) -> Schema:
    if action.nargs == 0:
        return {"type": "boolean"}
    if action.choices is not None:
        return {"enum": list(action.choices)}
    if action.type is int:
        return {"type": "integer"}
    return {"type": "number"} if action.type is float else {"type": ["string", "number"]}
