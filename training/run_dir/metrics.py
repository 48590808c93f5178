"""Reads the metrics of a run: one record for each step, and the note of how far the run is. ``metric_log`` writes them.

Lines are kept in segments that begin where a checkpoint ended (``metrics/00000030.jsonl`` begins with step 30). A run that
is resumed begins at such a border and writes from there again, so no step stands twice and none is missing. A line that was
damaged is left out by readers, and counted.

Every ``time_s`` is the clock of the machine that rank 0 was on, in seconds since 1970.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.layout import METRICS, PROGRESS, first_step_of
from crossdim.training.run_dir.records import (
    Check,
    Record,
    is_count,
    is_finite,
    is_seconds,
    is_table,
    keep_valid,
    parse_record,
    read_lines,
    read_records,
)

#: Members of a step's record; the values of monitors may be anything that a number can be.
MEMBERS: dict[str, Check] = {
    "step": is_count,
    "loss": is_finite,
    "terms": is_table(is_finite),
    "monitors": is_table(lambda value: type(value) is float or is_finite(value)),
    "lr": is_finite,
    "grad_norm": is_finite,
    "counts": is_table(is_count),
    "samples": lambda value: type(value) is int and 0 <= value < 2**63,
    "voxels": is_count,
    "wait_s": is_seconds,
    "step_s": lambda value: is_seconds(value) and value > 0,
    "skew_s": is_seconds,
    "slowest": is_count,
    "samples_per_s": is_finite,
    "voxels_per_s": is_finite,
    "time_s": is_seconds,
}
#: Those that the first release wrote, and what stands for the others where they are missing.
REQUIRED = ("step", "loss", "terms", "lr", "grad_norm", "counts", "samples", "wait_s", "step_s")
ABSENT: Record = {"monitors": {}, "voxels": 0, "skew_s": 0.0, "time_s": 0.0}
#: Members of the progress note that readers use.
PROGRESS_MEMBERS: dict[str, Check] = {
    "step": is_count,
    "loss": is_finite,
    "step_s": is_seconds,
    "wait_s": is_seconds,
    "time_s": is_seconds,
    "rank_me": is_finite,
}
#: How the names of monitors end that measure the encoder's features on a fixed batch, those of :mod:`.engine.monitor`.
ENCODER_RANK = "/encoder.rank_me"
_LOG = logging.getLogger(__name__)


def parse_step(line: str) -> Record | None:
    """Read the record of a step; None if it is damaged. What the first releases did not write has a neutral value."""
    record = parse_record(line)
    if record is None or not all(name in record for name in REQUIRED):
        return None
    if not all(check(record[name]) for name, check in MEMBERS.items() if name in record):
        return None
    return ABSENT | record


def list_figures(record: Record) -> dict[str, float]:
    """The numbers of a step that trackers show, by name.

    Args:
        record: of the step, with its rates.
    """
    figures: dict[str, float] = {name: record[name] for name in ("loss", "lr", "grad_norm", "wait_s", "step_s")}
    for folder in ("terms", "monitors", "counts"):
        figures |= {f"{folder}/{name}": value for name, value in record[folder].items()}
    return figures | {f"rates/{name}": record[name] for name in ("samples_per_s", "voxels_per_s") if name in record}


def step_of(line: str, number: int) -> int:
    """The step of a line.

    Args:
        line: of a segment.
        number: the step that belongs at its place in the segment, which is taken of a damaged line.

    Returns:
        The step, from 0.
    """
    record = parse_step(line)
    step: int = number if record is None else record["step"]
    return step


def read_steps(run: Bucket, path: str) -> tuple[list[Record], int]:
    """Read the records of a segment.

    Args:
        run: folder of the run.
        path: of the segment.

    Returns:
        The records in order, and the number of damaged lines, which are left out.
    """
    lines = read_lines(run, path)
    found = [record for line in lines if (record := parse_step(line)) is not None]
    return found, len(lines) - len(found)


def read_log(run: Bucket, most: int | None = None) -> tuple[list[Record], int]:
    """Read the steps that a run has logged, in order.

    Args:
        run: folder of the run.
        most: steps after which older segments are not read; None to read all.

    Returns:
        The records, and how many steps among them are left out: lines that are damaged or missing.
    """
    segments, parts, number = list_segments(run, METRICS), [], 0
    while segments and (most is None or number < most):
        parts.append(read_steps(run, segments.pop()[1]))
        number += len(parts[-1][0])
    records = [record for found, _ in reversed(parts) for record in found]
    first = records[0]["step"] if records and segments else 0
    absent = records[-1]["step"] + 1 - first - len(records) if records else 0
    return records, max(absent, sum(damaged for _, damaged in parts))


def read_metrics(run: Bucket) -> list[dict[str, Any]]:
    """Read every step that a run has logged, in order; damaged ones are left out, with a warning."""
    records, damaged = read_log(run)
    if damaged:
        _LOG.warning("%s", describe_damage(run, damaged))
    return records


def describe_damage(run: Bucket, steps: int) -> str:
    """Describe steps that cannot be read, in a sentence.

    Args:
        run: folder of the run.
        steps: how many they are.

    Returns:
        The sentence.
    """
    lines = f"the lines of {steps} steps are" if steps > 1 else "the line of 1 step is"
    return f"{run.where(METRICS)}: {lines} damaged or missing and left out of curves and rates; the run itself is not harmed"


def read_recent(run: Bucket, count: int) -> list[dict[str, Any]]:
    """Read the newest steps, in order, as far as they can be read while rank 0 writes.

    Args:
        run: folder of the run.
        count: how many, at most.

    Returns:
        At most ``count`` records, oldest first.
    """
    return read_log(run, count)[0][-count:]


def read_progress(run: Bucket) -> Record | None:
    """Read the progress note; None if there is none, or it is damaged."""
    note = next(iter(read_records(run, PROGRESS)), {})
    found: Record = {"step_s": 0.0, "wait_s": 0.0} | keep_valid(note, PROGRESS_MEMBERS)
    return found if {"step", "loss", "time_s"} <= found.keys() else None


def list_segments(run: Bucket, folder: str) -> list[tuple[int, str]]:
    """List the segments of a run.

    Args:
        run: folder of the run.
        folder: that of metrics or of TensorBoard's files.

    Returns:
        First step and path of each segment, in order; empty if there are none, or the last was removed while we looked.
    """
    with contextlib.suppress(StorageError):
        paths = [stored.path for stored in run.list_objects(folder)] if run.exists(folder) else []
        return sorted((first, path) for path in paths if (first := first_step_of(path)) is not None)
    return []
