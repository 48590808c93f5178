"""Options that work together with a file of ``--config``: flags that can be taken back, and options that change a setting."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from crossdim.foundation.settings import Override

CONFIG, PRINT_CONFIG = "--config", "--print-config"


class NegatableFlag(argparse.BooleanOptionalAction):
    """A flag ``--name`` that is off by default; ``--no-name`` takes it back where a file has it on."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, help=help)
        self.default = False  # after the base class, which would write it into the help

    def format_usage(self) -> str:
        """Only the flag: one that takes it back is rarely needed."""
        return self.option_strings[0]


class AppendSetting(argparse.Action):
    """``--set PATH=VALUE``, or an option that is short for it; both append to one list, in which the last one wins.

    Attributes:
        path: of the setting; None for ``--set``, whose value names it.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, path: str | None = None, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, **{"default": ()} | kwargs)
        self.path = path

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Append the setting."""
        text = values if self.path is None else f"{self.path}={values}"
        override = Override(text=text, where=f"{self.option_strings[0]} {values}")
        setattr(namespace, self.dest, (*(getattr(namespace, self.dest, None) or ()), override))


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--set``, which may be given several times."""
    parser.add_argument("--set", action=AppendSetting, metavar="PATH=VALUE", help="change one setting of the recipe; repeatable")


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--print-config``."""
    group = parser.add_argument_group("configuration", "the command line wins over the file, the file over the recipe")
    group.add_argument(CONFIG, metavar="FILE.yaml", help="options by their long names, and settings of the recipe under set")
    printed = "print every option and setting, and where it is from; do nothing else"
    group.add_argument(PRINT_CONFIG, action="store_const", const=True, default=False, help=printed)


def option_key(action: argparse.Action) -> str:
    """The key of an option in a file: its long name; of an argument without one, its name."""
    long = [one for one in action.option_strings if one.startswith("--")]
    return long[0].removeprefix("--") if long else action.dest


def find_verb(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """Find the parser of a verb.

    Args:
        parser: with verbs.
        name: of the verb.

    Returns:
        Its parser.

    Raises:
        LookupError: if there is none of this name.
    """
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: argparse.ArgumentParser = action.choices[name]
            return found
    raise LookupError(name)


def list_options(verb: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options and arguments of a verb that a file may hold, by key."""
    found = {option_key(action): action for action in verb._actions}
    left_out = (CONFIG.removeprefix("--"), PRINT_CONFIG.removeprefix("--"), "help")
    return {key: action for key, action in found.items() if key not in left_out}


def names_config(arguments: Sequence[str]) -> bool:
    """Whether a command line has ``--config`` or ``--print-config``."""
    return any(one.partition("=")[0] == CONFIG or one == PRINT_CONFIG for one in arguments)
