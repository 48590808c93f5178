"""Prints the configuration of a command with the origin of every value, as a file that ``--config`` reads."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.config_parsing import LoadRecipe, Option, Parsed
from crossdim.foundation.setting_list import list_settings
from crossdim.foundation.settings import KIND, Families, Override, override_settings, to_document
from crossdim.foundation.yaml_text import write_yaml

#: Options whose values are not shown.
SECRETS = ("access-key", "secret-key")
RECIPE = "recipe"
#: A value that stands for another, which is found when the command runs.
AUTO = "auto"


def format_config(parsed: Parsed) -> str:
    """Format the configuration of a command.

    Args:
        parsed: the command line with its file.

    Returns:
        YAML with origins as comments, or with ``--json`` one JSON object.

    Raises:
        UsageError: with every setting that does not exist, or has a value that is refused.
    """
    options = [_hide(one) for one in parsed.options]
    settings, origins = _resolve_settings(parsed.arguments)
    if getattr(parsed.arguments, "json", False):
        of_options = {one.key: {"value": one.value, "from": one.source} for one in options}
        of_settings = {path: {"value": one.value, "from": one.source} for path, one in origins.items()}
        return json.dumps({"options": of_options, "settings": of_settings}, sort_keys=True)
    document: dict[str, Any] = {one.key: one.value for one in options}
    comments = {one.key: one.source for one in options}
    if settings is not None:
        document["set"] = settings
        comments |= {f"set.{path}": one.comment for path, one in origins.items()}
    return write_yaml(document, comments)


def _hide(option: Option) -> Option:
    if option.key in SECRETS and option.value is not None:
        return Option(key=option.key, value=None, source=f"{option.source}, not shown")
    value = list(option.value) if isinstance(option.value, tuple) else option.value
    return Option(key=option.key, value=value, source=option.source)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Origin:
    """A setting with its origin; what ``auto`` stands for is in its meaning."""

    value: Any
    source: str
    meaning: str

    @property
    def comment(self) -> str:
        return f"{self.source}; {self.meaning}" if self.value == AUTO else self.source


def _resolve_settings(arguments: argparse.Namespace) -> tuple[Any, dict[str, _Origin]]:
    """The settings as a document, and by path with value and origin; none for a verb or a command without a recipe."""
    load: LoadRecipe | None = getattr(arguments, "load_recipe", None)
    if load is None or arguments.recipe is None:
        return None, {}
    config, families = load(arguments)
    overrides: Sequence[Override] = arguments.set
    config = override_settings(config, overrides, families)
    return to_document(config), _find_origins(config, families, overrides)


def _find_origins(config: Any, families: Families, overrides: Iterable[Override]) -> dict[str, _Origin]:
    """For each setting the last override of it, or of a part that holds it."""
    origins: dict[str, _Origin] = {}
    for setting in list_settings(config, families):
        if setting.is_group:
            continue
        source = RECIPE
        for one in overrides:
            if f"{setting.path}.".startswith(f"{one.path}."):
                source = one.source
        where = f"{setting.path}.{KIND}" if setting.is_member else setting.path
        origins[where] = _Origin(value=setting.value, source=source, meaning=setting.meaning.line)
    return origins
