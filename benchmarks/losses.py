"""Losses: what it cost a run to lose workers, read from its folder."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.records import read_records


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What one loss cost.

    Attributes:
        noticed_s: until the run knew.
        started_s: from there until there were workers again, with the checkpoint loaded.
        stepped_s: from there to the end of the first step.
        redone_s: training in vain: from the end of the last step that was kept to the loss.
    """

    noticed_s: float
    started_s: float
    stepped_s: float
    redone_s: float

    @property
    def seconds(self) -> float:
        """From the loss to the first step after it."""
        return self.noticed_s + self.started_s + self.stepped_s

    def __str__(self) -> str:
        parts = f"noticed {self.noticed_s:.1f} s, workers up {self.started_s:.1f} s, first step {self.stepped_s:.1f} s"
        return f"{self.seconds:.1f} s to the next step ({parts}); {self.redone_s:.1f} s of training in vain"


def summary(losses: Sequence[Loss]) -> str:
    """Losses as a line that can be copied: median (least to most) of each part."""
    parts = {
        "to the next step": [loss.seconds for loss in losses],
        "noticed": [loss.noticed_s for loss in losses],
        "workers up": [loss.started_s for loss in losses],
        "first step": [loss.stepped_s for loss in losses],
        "training in vain": [loss.redone_s for loss in losses],
    }
    texts = [f"{name} {statistics.median(s):.1f} s ({min(s):.1f} to {max(s):.1f})" for name, s in parts.items()]
    return f"{len(losses)} losses, median (min to max): {', '.join(texts)}"


def cost(run: Bucket, at: float, resumed: dict[str, Any]) -> Loss:
    """What the loss at ``at`` cost, after which the run went on with the event ``resumed``."""
    lost = next(note for e in list_events(run) if e.kind == "lost" for note in read_records(run, e.path) if note["time_s"] >= at)
    lines = read_metrics(run)
    first = next(record for record in lines if record["step"] >= resumed["step"])
    kept = next(record for record in lines if record["step"] == resumed["step"] - 1)
    return Loss(
        noticed_s=lost["time_s"] - at,
        started_s=resumed["time_s"] - lost["time_s"],
        stepped_s=first["time_s"] - resumed["time_s"],
        redone_s=at - kept["time_s"],
    )
