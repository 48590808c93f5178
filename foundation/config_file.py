"""A file of ``--config``: options of a verb by their long names, and settings of its recipe under ``set``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from crossdim.foundation.config_options import CONFIG, AppendSetting, list_options
from crossdim.foundation.settings import KIND, Override
from crossdim.foundation.yaml_reader import Located, read_yaml
from crossdim.storage_schema.errors import Problem, describe_unknown_name
from crossdim.storage_schema.names import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class FileOption:
    """An option of a file.

    Attributes:
        value: as the verb takes it.
        raw: as it stands in the file.
        source: file and line.
    """

    value: Any
    raw: Any
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfigFile:
    """What a file says.

    Attributes:
        name: of the file, for messages.
        options: by the name of the verb's argument.
        overrides: of settings, in their order in the file.
        problems: everything that is wrong with its options.
    """

    name: str
    options: dict[str, FileOption] = field(default_factory=dict)
    overrides: list[Override] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_config_file(path: str, verb: argparse.ArgumentParser) -> ConfigFile:
    """Read a file against the options of a verb.

    Args:
        path: of the file.
        verb: parser of the verb.

    Returns:
        Its options and settings, and what is wrong with the former.

    Raises:
        StorageError: if the file cannot be read.
        UsageError: if it is no YAML.
    """
    found, known = ConfigFile(name=printable(path)), list_options(verb)
    for key, item in read_yaml(path, CONFIG).items.items():
        source = f"{found.name}:{item.line}"
        action = known.get(key)
        if action is None:
            found.problems.append(Problem(loc=source, message=describe_unknown_name("option", key, known)))
            continue
        try:
            _read_option(found, action, key, item)
        except (argparse.ArgumentTypeError, ValueError) as error:
            found.problems.append(Problem(loc=source, message=f"{key}: {error}"))
    _find_repeated_settings(found)
    return found


def _read_option(found: ConfigFile, action: argparse.Action, key: str, item: Located) -> None:
    source = f"{found.name}:{item.line}"
    if isinstance(action, AppendSetting) and action.path is None:
        if item.value is not None and not isinstance(item.value, dict):
            raise ValueError("expected settings, such as {optimizer.lr: 0.003}")
        found.overrides.extend(_flatten(item, "", found.name))
    elif item.value is None:  # as if it were not there
        return
    elif isinstance(action, AppendSetting):
        _convert(action, item.value, item.text)
        found.overrides.append(Override(text=f"{action.path}={item.text}", where=f"{source}: {key}", source=source))
    else:
        found.options[action.dest] = FileOption(value=_read_value(action, item), raw=item.value, source=source)


def _read_value(action: argparse.Action, item: Located) -> Any:
    if action.nargs == 0:
        if not isinstance(item.value, bool):
            raise ValueError(f"expected true or false; found {item.value!r}")
        return item.value
    if action.nargs == "?" and action.option_strings and item.value is True:
        return action.const
    takes_list = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
    if isinstance(item.value, list):
        if not takes_list or (not item.value and action.default != []):
            raise ValueError(f"expected {'at least one value' if takes_list else 'one value'}; found {item.value!r}")
        return [_convert(action, each, str(each)) for each in item.value]
    one = _convert(action, item.value, item.text)
    return [one] if takes_list else one


def _convert(action: argparse.Action, value: Any, text: str) -> Any:
    if isinstance(value, dict | list | bool) or value is None:
        raise ValueError(f"expected a text or a number; found {value!r}")
    try:
        converted = action.type(text) if callable(action.type) else text
    except (ValueError, TypeError):
        raise ValueError(f"expected {getattr(action.type, '__name__', 'another value')}; found {text!r}") from None
    if action.choices is not None and converted not in action.choices:
        raise ValueError(describe_unknown_name("value", text, map(str, action.choices)))
    return converted


def _flatten(item: Located, above: str, file: str) -> Iterator[Override]:
    """The settings of a mapping. One with ``kind`` takes the place of a whole part; another is followed inside."""
    for key, inner in item.items.items():
        path = f"{above}{key}"
        if isinstance(inner.value, dict) and KIND not in inner.items:
            yield from _flatten(inner, f"{path}.", file)
        else:
            text = inner.value if isinstance(inner.value, str) else json.dumps(inner.value)
            source = f"{file}:{inner.line}"
            yield Override(text=f"{path}={text}", where=f"{source}: {path}", source=source)


def _find_repeated_settings(found: ConfigFile) -> None:
    """Settings that stand twice in different forms: ``steps`` and ``set.steps``, or nested and with dots."""
    first: dict[str, Override] = {}
    for one in found.overrides:
        if one.path in first:
            found.problems.append(Problem(loc=one.source, message=f"{one.path} stands twice, also in {first[one.path].source}"))
        first.setdefault(one.path, one)
