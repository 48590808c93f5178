"""Steps of a run that a user chooses: by number, or as a percentage of the run."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Final, Literal

from crossdim.storage_schema.errors import UsageError

NONE: Final = "none"
ALL: Final = "all"
_ONE = re.compile(r"([0-9]{1,8})|([0-9]{1,3}(?:\.[0-9]{1,6})?)%")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenSteps:
    """Numbers of steps done, each given as it is or as a percentage of the steps of a run.

    Attributes:
        steps: as they are.
        percents: 0 to 100.
    """

    steps: tuple[int, ...] = ()
    percents: tuple[float, ...] = ()

    def resolve(self, total: int, option: str) -> tuple[int, ...]:
        """The steps of a run.

        Args:
            total: steps of the run.
            option: of the command line, for the message.

        Returns:
            Numbers of steps done, in order, each once.

        Raises:
            UsageError: if the run has fewer steps than one of them.
        """
        if late := [step for step in self.steps if step > total]:
            raise UsageError(f"{option}: the run has {total} steps; found {', '.join(map(str, late))}")
        return tuple(sorted({*self.steps, *(round(total * percent / 100) for percent in self.percents)}))


def parse_chosen_steps(text: str) -> ChosenSteps:
    """Read ``0,10%,500`` as steps and percentages of a run, and ``none`` as none."""
    parts = [] if text == NONE else [part.strip() for part in text.split(",")]
    found = [_ONE.fullmatch(part) for part in parts]
    steps = tuple(int(one[1]) for one in found if one and one[1])
    percents = tuple(float(one[2]) for one in found if one and one[2])
    if not all(found) or any(percent > 100 for percent in percents):
        raise argparse.ArgumentTypeError(
            f"{text!r} names no steps: numbers of steps, or percentages of the run up to 100%, as in 0,10%,500; or {NONE}"
        )
    return ChosenSteps(steps=steps, percents=percents)


def parse_checkpoint_choice(text: str) -> ChosenSteps | Literal["all"]:
    """Read ``all``, or steps as :func:`parse_chosen_steps` does, of which there must be one."""
    if text == NONE:
        raise argparse.ArgumentTypeError("names no checkpoint; leave the option out to evaluate only the newest")
    return ALL if text == ALL else parse_chosen_steps(text)
