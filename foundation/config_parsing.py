"""Parses a command line that names a file of ``--config``, and tells where every option is from."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from crossdim.foundation.config_file import ConfigFile, read_config_file
from crossdim.foundation.config_options import AppendSetting, find_verb, list_options
from crossdim.foundation.settings import Families, try_overrides
from crossdim.storage_schema.errors import CrossdimError, DocumentError, Problem, UsageError

#: Finds the recipe that parsed arguments name, before its settings are changed, and its families. A parser that takes a
#: recipe holds it as the default ``load_recipe``.
LoadRecipe = Callable[[argparse.Namespace], tuple[Any, Families]]
COMMAND_LINE, DEFAULT, MISSING = "command line", "default", "missing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """An option with its origin.

    Attributes:
        key: its long name.
        value: as it was written.
        source: command line, file and line, default, or missing.
    """

    key: str
    value: Any
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A command line together with its file.

    Attributes:
        arguments: for the verb.
        options: with their origins; settings of a recipe are not among them.
    """

    arguments: argparse.Namespace
    options: list[Option]


def parse_with_config(build: Callable[[], argparse.ArgumentParser], arguments: Sequence[str]) -> Parsed:
    """Parse a command line whose file gives what it leaves out.

    Args:
        build: returns the parser.
        arguments: the verb, and its arguments.

    Returns:
        The arguments; of options that may be repeated, those of the file come first.

    Raises:
        StorageError: if the file cannot be read.
        UsageError: with everything that is wrong in the file.
    """
    try:
        verb, again = (find_verb(build(), arguments[0]) for _ in range(2))
    except LookupError:  # which is answered as without a file
        return Parsed(arguments=build().parse_args(arguments), options=[])
    given = _parse_given(again, arguments[1:])
    file = read_config_file(given["config"], verb) if given.get("config") else ConfigFile(name="")
    if file.problems:
        raise UsageError(str(DocumentError(file.name, [*file.problems, *_find_setting_problems(verb, given, file)])))
    options = _list_origins(verb, given, file)
    missing = _fill_in(verb, file, given)
    if missing and not given.get("print_config"):
        verb.error(f"the following arguments are required: {', '.join(missing)}")
    return Parsed(arguments=verb.parse_intermixed_args(arguments[1:]), options=options)


def _parse_given(verb: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """What the command line says itself, as texts; values are checked, and nothing is required."""
    for action in verb._actions:
        action.default = argparse.SUPPRESS
        _relax(action)
        if callable(action.type):
            action.type = _keep_text(action.type)
            action.choices = None  # of converted values; the second parsing checks them
    return vars(verb.parse_intermixed_args(arguments))


def _relax(action: argparse.Action) -> None:
    """Let an argument be left out."""
    action.required = False
    if not action.option_strings:
        action.nargs = "*" if action.nargs == "+" else "?"


def _keep_text(convert: Callable[[str], Any]) -> Callable[[str], str]:
    @wraps(convert)
    def check(text: str) -> str:
        convert(text)
        return text

    return check


def _fill_in(verb: argparse.ArgumentParser, file: ConfigFile, given: dict[str, Any]) -> list[str]:
    """Make what the file says the default of a parser; returns the names of what is required and still missing."""
    missing: list[str] = []
    for action in verb._actions:
        option = file.options.get(action.dest)
        if action.required and option is None and action.dest not in given:
            missing.append("/".join(action.option_strings) or str(action.metavar or action.dest))
        if option is not None:
            action.default = option.value
        elif isinstance(action, AppendSetting):
            action.default = tuple(sorted(file.overrides, key=lambda one: one.path.count(".")))  # whole parts first
        _relax(action)
    return missing


def _find_setting_problems(verb: argparse.ArgumentParser, given: dict[str, Any], file: ConfigFile) -> list[Problem]:
    """What is wrong with the settings of a file, as far as its recipe is known."""
    load: LoadRecipe | None = verb.get_default("load_recipe")
    recipe = given.get("recipe") or (file.options["recipe"].value if "recipe" in file.options else None)
    if load is None or recipe is None or not file.overrides:
        return []
    with contextlib.suppress(CrossdimError):  # of the recipe, which is told when the file is corrected
        config, families = load(argparse.Namespace(recipe=recipe, extension=given.get("extension", [])))
        _, problems = try_overrides(config, file.overrides, families)
        split = [problem.partition(": ") for problem in problems]
        return [Problem(loc=where, message=message) for where, _, message in split]
    return []


def _list_origins(verb: argparse.ArgumentParser, given: dict[str, Any], file: ConfigFile) -> list[Option]:
    found: list[Option] = []
    for key, action in list_options(verb).items():
        if isinstance(action, AppendSetting):
            continue
        of_file = file.options.get(action.dest)
        if action.dest in given and of_file and isinstance(action, argparse._AppendAction):
            value, source = [*of_file.value, *given[action.dest]], f"{of_file.source}, {COMMAND_LINE}"
        elif action.dest in given:
            value, source = given[action.dest], COMMAND_LINE
        elif of_file:
            value, source = of_file.raw, of_file.source
        else:
            value, source = action.default, MISSING if action.required else DEFAULT
        found.append(Option(key=key, value=value, source=source))
    return found
