"""Course: what became of one run, from its log: did its loss fall, did its features stay apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Share of a run that its beginning and its end are averaged over.
EDGE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Course:
    """One run in numbers.

    Attributes:
        loss_first: mean loss of the first tenth of the steps.
        loss_last: of the last tenth.
        evenness: the lowest mean over the last tenth of any collapse monitor; 0 is collapse, NaN is not watched.
        samples: seen in all.
        voxels: of the views of one step, in the middle of the run.
        seconds: of all steps.
        wait_share: of those, waiting for data.
    """

    steps: int
    samples: int
    voxels: int
    loss_first: float
    loss_last: float
    evenness: float
    seconds: float
    wait_share: float


def course(records: Sequence[dict[str, Any]]) -> Course:
    """The course of a run from its logged steps."""
    edge = max(1, int(len(records) * EDGE))
    last = records[-edge:]
    watched = [name for name in last[0]["monitors"] if "evenness" in name]
    seconds = sum(record["step_s"] for record in records)
    return Course(
        steps=len(records),
        samples=sum(sum(record["counts"].values()) for record in records),
        voxels=records[len(records) // 2]["voxels"],
        loss_first=float(np.mean([record["loss"] for record in records[:edge]])),
        loss_last=float(np.mean([record["loss"] for record in last])),
        evenness=min((_mean(last, name) for name in watched), default=float("nan")),
        seconds=seconds,
        wait_share=sum(record["wait_s"] for record in records) / seconds,
    )


def _mean(records: Sequence[dict[str, Any]], monitor: str) -> float:
    return float(np.mean([record["monitors"][monitor] for record in records if monitor in record["monitors"]]))
