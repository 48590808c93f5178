"""Summary of one run from its metrics: did the loss fall, did features stay apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Share of a run that its beginning and its end are averaged over.
EDGE = 0.1
#: What was not measured.
NOTHING = float("nan")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """One run in numbers.

    Attributes:
        steps: that were logged.
        samples: of all steps and ranks.
        voxels: of the views of one step, in the middle of the run.
        loss_first: mean loss of the first tenth of the steps.
        loss_last: mean loss of the last tenth.
        evenness: over the collapse monitors, the lowest mean of the last tenth; 0 is collapse, NaN if none was logged.
        dimensions: participation ratio of the encoder's features of fixed batches at the last measurement, the lowest of the
            streams; 1 is collapse onto a line, NaN if none was made.
        rank_me: the same by RankMe.
        alignment: of the same features, the highest; NaN for a method without two views.
        uniformity: of the same features, the highest: 0 is collapse to a point.
        seconds: of all steps.
        wait_share: fraction of those spent waiting for data.
    """

    steps: int
    samples: int
    voxels: int
    loss_first: float
    loss_last: float
    evenness: float
    dimensions: float
    rank_me: float
    alignment: float
    uniformity: float
    seconds: float
    wait_share: float


def summarise_run(records: Sequence[dict[str, Any]]) -> RunSummary:
    """Summarise a run from its logged steps."""
    edge = max(1, int(len(records) * EDGE))
    last = records[-edge:]
    seconds = sum(record["step_s"] for record in records)
    return RunSummary(
        steps=len(records),
        samples=sum(sum(record["counts"].values()) for record in records),
        voxels=records[len(records) // 2]["voxels"],
        loss_first=float(np.mean([record["loss"] for record in records[:edge]])),
        loss_last=float(np.mean([record["loss"] for record in last])),
        evenness=_least(last, "evenness"),
        dimensions=min(_last_look(records, "dimensions"), default=NOTHING),
        rank_me=min(_last_look(records, "rank_me"), default=NOTHING),
        alignment=max(_last_look(records, "alignment"), default=NOTHING),
        uniformity=max(_last_look(records, "uniformity"), default=NOTHING),
        seconds=seconds,
        wait_share=sum(record["wait_s"] for record in records) / seconds,
    )


def _least(records: Sequence[dict[str, Any]], kind: str) -> float:
    """The lowest mean over the monitors of a kind; NaN if none was logged."""
    watched = [name for name in records[0]["monitors"] if kind in name]
    return min((_mean(records, name) for name in watched), default=NOTHING)


def _last_look(records: Sequence[dict[str, Any]], measure: str) -> list[float]:
    """A measure of the encoder's features at the last measurement, of each stream."""
    measured = (
        [value for name, value in r["monitors"].items() if name.endswith(f"/encoder.{measure}")] for r in reversed(records)
    )
    return next((values for values in measured if values), [])


def _mean(records: Sequence[dict[str, Any]], monitor: str) -> float:
    return float(np.mean([record["monitors"][monitor] for record in records if monitor in record["monitors"]]))
