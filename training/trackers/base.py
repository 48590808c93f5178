"""What a tracker is: it takes the numbers of steps, texts, and the end of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from crossdim.training.run_dir.settings_table import Value

#: A step and its numbers by name.
StepFigures = tuple[int, Mapping[str, float]]
End = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """A run as a tracker shows it. Neither options of stores nor pictures of samples are part of it.

    Attributes:
        name: of its folder.
        where: its folder, without secrets.
        settings: by path.
    """

    name: str
    where: str
    settings: Mapping[str, Value]


class Tracker(Protocol):
    """An open run of a tracker."""

    #: Under which the tracker knows the run; the same at every start.
    identifier: str

    def log_steps(self, steps: Sequence[StepFigures]) -> None:
        """Send the numbers of steps.

        Args:
            steps: in order.
        """

    def log_text(self, name: str, text: str) -> None:
        """Send a text, in the place of an earlier one of this name.

        Args:
            name: of the text.
            text: for people.
        """

    def close(self, end: End) -> None:
        """Say how the run ended, and wait until all is sent."""


#: Opens the run of a tracker that has this identifier; with None a new one.
Open = Callable[[TrackedRun, str | None], Tracker]
