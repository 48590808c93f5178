"""The pages of the reference, written from the parsers, the recipes and the public names when the site is built."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

import crossdim
from docs.commands import write_commands
from docs.settings import write_settings

_PYTHON = """# Python

`import crossdim` provides these names; each is imported when it is first used. This page is generated from their docstrings.
[Streaming into your own loop](../journeys/own-loop.md) shows how most of them are used.
"""
#: Annotations are texts in modules that postpone them; defaults that are texts keep their quotes.
_QUOTED_ANNOTATION = re.compile(r"""(: |-> )(['"])(.*?)\2(?= = |, |\)|$)""")
#: A name with its role in reStructuredText.
_ROLE = re.compile(r":\w+:`~?([\w.]+)`")


def write_python() -> str:
    """The reference of ``import crossdim``: each public name with its signature and docstring."""
    return "\n".join([_PYTHON, *map(_describe, crossdim.__all__)])


def _describe(name: str) -> str:
    value = getattr(crossdim, name)
    doc = _ROLE.sub(r"`\1`", inspect.getdoc(value) or "")
    lines = [f"## {name}", "", "```text", f"crossdim.{name}{_signature(value)}", "", doc, "```", ""]
    if inspect.isclass(value):
        methods = [(own, part) for own, part in vars(value).items() if not own.startswith("_") and inspect.isfunction(part)]
        for own, part in methods:
            summary = _ROLE.sub(r"`\1`", (inspect.getdoc(part) or "").partition("\n")[0])
            lines += [f"- `{own}{_signature(part)}`: {summary.replace('``', '`')}"]
    return "\n".join([*lines, ""])


def _signature(value: object) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return ""
    text = str(inspect.signature(value)) if callable(value) else ""
    return _QUOTED_ANNOTATION.sub(r"\1\3", text).replace("(self, ", "(").replace("(self)", "()")


#: Page of the site -> what writes it.
GENERATED_PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": write_commands,
    "reference/settings.md": write_settings,
    "reference/python.md": write_python,
}
