"""What settings mean: the section ``Attributes`` of the docstring of their dataclass is the one place where that is written."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

#: An entry of the section, ``name: meaning`` or ``name (unit): meaning``; lines that continue it are further indented.
_ENTRY = re.compile(r"^    (\w+)(?: \(([^)]+)\))?: (.+(?:\n {8}.*)*)", re.MULTILINE)
_SECTION = re.compile(r"^Attributes:\n((?:    .*\n?)+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """What a setting means.

    Attributes:
        text: in one paragraph.
        unit: empty for a number without one, and for what is no number.
    """

    text: str
    unit: str = ""

    @property
    def line(self) -> str:
        """The first sentence, for tables."""
        return self.text.partition(". ")[0].removesuffix(".")


def read_meanings(kind: type) -> dict[str, Meaning]:
    """Read the meanings of a dataclass's settings, those of its base classes included; with ``python -OO`` there are none."""
    found: dict[str, Meaning] = {}
    for each in reversed(kind.__mro__):
        text = inspect.cleandoc(vars(each).get("__doc__") or "")
        for section in _SECTION.findall(text):
            for name, unit, words in _ENTRY.findall(section):
                found[name] = Meaning(text=" ".join(words.replace("``", "").split()), unit=unit)
    return found
