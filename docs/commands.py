"""The reference of commands, written from the parsers."""

from __future__ import annotations

import argparse
import importlib

from crossdim.cli import VERBS
from crossdim.foundation.config_options import NegatableFlag, find_verb
from docs.tables import code, format_markdown_table

#: Groups of options that several verbs have in common, which are listed once.
SHARED_GROUPS = ("configuration", "storage")
_HEAD = """# Commands

This page is generated from the parsers of the command line; `crossdim help VERB` prints the same.

Every path is a folder or any fsspec URL, such as `s3://bucket/folder`.

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 1 | wrong use: the command line asks for what cannot be done (an unknown option or setting, `--gpu` without a GPU, \
more workers than a batch feeds, data that a recipe does not take), and nothing was started; or a question was answered with no |
| 2 | failed; also if a file or folder named on the command line does not exist, or holds another run or dataset |
| 3 | done, with quarantined samples |
| 4 | features collapsed, in a run with `--stop-on-collapse` |
| 130 | interrupted with Ctrl-C |
"""


def find_parser(verb: str) -> argparse.ArgumentParser:
    """Find the parser of a verb."""
    module = importlib.import_module(f"crossdim.{VERBS[verb][0]}")
    return find_verb(module.build_parser(), verb)


def write_commands() -> str:
    """The page: every verb with its arguments, options and examples, then the options that verbs have in common."""
    parsers = {verb: find_parser(verb) for verb in VERBS}
    sections = [_describe_verb(verb, parser) for verb, parser in parsers.items()]
    return "\n".join([_HEAD, *sections, *(_describe_shared(title, parsers) for title in SHARED_GROUPS)])


def _describe_verb(verb: str, parser: argparse.ArgumentParser) -> str:
    about = VERBS[verb][1]
    lines = [f"## {verb}", "", f"{about[0].upper()}{about[1:]}.", ""]
    for group in parser._action_groups:
        if group.title not in SHARED_GROUPS:
            lines += _describe_group(group)
    shared = [f"[{group.title}](#{group.title})" for group in parser._action_groups if group.title in SHARED_GROUPS]
    if shared:
        lines += [f"Also the options of {' and '.join(shared)}.", ""]
    if parser.epilog:
        lines += ["```text", parser.epilog, "```", ""]
    return "\n".join(lines)


def _describe_shared(title: str, parsers: dict[str, argparse.ArgumentParser]) -> str:
    """Options that are the same for several verbs, with their names."""
    found = {verb: group for verb, parser in parsers.items() for group in parser._action_groups if group.title == title}
    verbs = ", ".join(f"`{verb}`" for verb in found)
    return "\n".join([f"## {title}", "", f"Of {verbs}.", "", *_describe_group(next(iter(found.values())))])


def _describe_group(group: argparse._ArgumentGroup) -> list[str]:
    actions = [action for action in group._group_actions if action.help is not argparse.SUPPRESS and action.dest != "help"]
    if not actions:
        return []
    rows = [(code(_spell(action)), (action.help or "").replace("%%", "%")) for action in actions]  # argparse fills in its helps
    return [*_introduce(group), *format_markdown_table(("argument", "meaning"), rows), ""]


def _introduce(group: argparse._ArgumentGroup) -> list[str]:
    """The description of a group; the title of a group that a verb has alone stands before it."""
    if not group.description:
        return []
    title = "" if group.title in SHARED_GROUPS else f"**{(group.title or '').capitalize()}.** "
    sentence = group.description.strip()
    return [f"{title}{sentence[0].upper()}{sentence[1:]}{'' if sentence.endswith('.') else '.'}", ""]


def _spell(action: argparse.Action) -> str:
    """An option as it is typed, with its value; an argument by its metavar."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return action.option_strings[0] if isinstance(action, NegatableFlag) else " | ".join(action.option_strings)
    value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper())
    text = value if isinstance(value, str) else " ".join(value)
    if not action.option_strings:
        return text
    takes_value = action.nargs != 0
    return (
        f"{action.option_strings[-1]} {f'[{text}]' if action.nargs == '?' else text}"
        if takes_value
        else action.option_strings[-1]
    )
