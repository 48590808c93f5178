"""Metrics of a run, in its folder: one record a step and the same numbers for TensorBoard, and how far the run is.

Lines are kept in segments that begin where a checkpoint ended (``metrics/00000030.jsonl`` begins with step 30). A run that
is resumed begins at such a border and writes from there again, so no step stands twice and none is missing. A line that was
damaged is left out by readers, and counted.

Every ``time_s`` is the clock of the machine that rank 0 was on, in seconds since 1970.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.training.engine.loop import StepRecord
from crossdim.training.run_dir.background_writer import Scribe
from crossdim.training.run_dir.records import (
    Check,
    Record,
    is_count,
    is_finite,
    is_seconds,
    is_table,
    legible,
    only_sound,
    parse_record,
    read_lines,
    record_text,
)
from crossdim.training.run_dir.tensorboard import Curves

FOLDER = "metrics"
PROGRESS = "progress.json"
BOARD = "tensorboard"
#: Seconds between writes of the open segment and of the progress note.
EVERY_S = 2.0

#: Members of a step's record; the values of monitors may be anything that a number can be.
MEMBERS: dict[str, Check] = {
    "step": is_count,
    "loss": is_finite,
    "terms": is_table(is_finite),
    "monitors": is_table(lambda value: type(value) in (int, float)),
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
}
_SEGMENT = re.compile(rf"(?:{FOLDER}/|{BOARD}/events\.out\.tfevents\.)(\d{{1,15}})(?:\.jsonl)?\Z")
_LOG = logging.getLogger(__name__)


class MetricLog:
    """Rank 0's numbers. They are put into storage by the scribe, in order with what else it writes."""

    def __init__(self, run: Bucket, first_step: int, total: int, scribe: Scribe) -> None:
        self._run, self._total, self._scribe = run, total, scribe
        self._segment = first_step
        #: Steps of the segment that is gone on from whose lines are damaged or missing.
        self.damaged = 0
        #: Steps that were told before this start, and are done again: at least so many were made in vain.
        self.done_again = self._forgotten_from(first_step)
        self._lines: list[str] = []
        self._written = 0.0
        self._curves = Curves(first_step)

    def _forgotten_from(self, step: int) -> int:
        """Remove what tells of steps that were done after the checkpoint we resumed from; how many they were."""
        told = [record["step"] for record in recent(self._run, 1)]
        segments = _segments(self._run, FOLDER)
        after = [path for first, path in segments if first >= step]
        for path in (*after, *(path for first, path in _segments(self._run, BOARD) if first >= step)):
            self._run.delete(path)
        # A checkpoint that a lost worker still wrote may lie inside what the next ones told.
        for first, path in segments[: len(segments) - len(after)][-1:]:
            lines = read_lines(self._run, path)
            kept = [line for number, line in enumerate(lines, first) if _step_of(line, number) < step]
            self.damaged = max(0, step - first - sum(parse_step(line) is not None for line in kept))
            if kept != lines:
                self._run.put(path, "".join(f"{line}\n" for line in kept).encode())
        return max(0, told[-1] + 1 - step) if told else 0

    def add(self, record: StepRecord) -> None:
        """Note a step; now and then also in storage."""
        self._newest = record
        self._lines.append(record_text(asdict(record) | record.rates | {"time_s": time.time()}))
        self._curves.add(record.step, _values(record))
        if time.monotonic() - self._written > EVERY_S and self._scribe.idle:
            # What cannot be put now is put two seconds later, with more; only a checkpoint waits for the store.
            self._write(record, self._tried)

    def tell(self) -> None:
        """Have the last steps put into storage, if they are not."""
        if self._lines:
            self._write(self._newest, self._run.put)

    def _tried(self, path: str, data: bytes) -> None:
        with contextlib.suppress(UnreachableError):
            self._run.with_patience(0).put(path, data)

    def _write(self, record: StepRecord, put: Callable[[str, bytes], None]) -> None:
        """Have what is known put into storage."""
        segment = f"{FOLDER}/{self._segment:08d}.jsonl"
        self._scribe.write(put, segment, ("\n".join(self._lines) + "\n").encode())
        note = {
            "step": record.step + 1,
            "total": self._total,
            "loss": record.loss,
            "step_s": record.step_s,
            "wait_s": record.wait_s,
            "time_s": time.time(),
        }
        self._scribe.write(put, PROGRESS, record_text(note).encode())
        self._written = time.monotonic()

    def checkpointed(self, record: StepRecord) -> None:
        """Close the segment at a checkpoint and begin the next."""
        self._write(record, self._run.put)
        self._scribe.write(self._run.put, f"{BOARD}/events.out.tfevents.{self._segment:08d}", self._curves.take())
        self._segment, self._lines = record.step + 1, []


def _values(record: StepRecord) -> dict[str, float]:
    """What curves are drawn of."""
    values = {name: getattr(record, name) for name in ("loss", "lr", "grad_norm", "wait_s", "step_s")}
    for folder in ("terms", "monitors", "counts", "rates"):
        values |= {f"{folder}/{name}": value for name, value in getattr(record, folder).items()}
    return values


def parse_step(line: str) -> Record | None:
    """The record of a step; None if it is damaged. What the first releases did not write has a neutral value."""
    record = parse_record(line)
    if record is None or not all(name in record for name in REQUIRED):
        return None
    if not all(check(record[name]) for name, check in MEMBERS.items() if name in record):
        return None
    return ABSENT | record


def _step_of(line: str, number: int) -> int:
    """The step that a line tells of; of a damaged one by its place in the segment."""
    record = parse_step(line)
    step: int = number if record is None else record["step"]
    return step


def read_steps(run: Bucket, path: str) -> tuple[list[Record], int]:
    """The records of a segment, and how many of its lines are damaged."""
    lines = read_lines(run, path)
    found = [record for line in lines if (record := parse_step(line)) is not None]
    return found, len(lines) - len(found)


def read_log(run: Bucket) -> tuple[list[Record], int]:
    """Every step that a run has logged, in order, and how many are left out: lines that are damaged, or are not there."""
    parts = [read_steps(run, path) for _, path in _segments(run, FOLDER)]
    records = [record for found, _ in parts for record in found]
    absent = records[-1]["step"] + 1 - len(records) if records else 0
    return records, max(absent, sum(damaged for _, damaged in parts))


def read_metrics(run: Bucket) -> list[dict[str, Any]]:
    """Every step that a run has logged, in order; damaged ones are left out, and the log is told of them."""
    records, damaged = read_log(run)
    if damaged:
        _LOG.warning("%s", damage(run, damaged))
    return records


def damage(run: Bucket, steps: int) -> str:
    """A sentence on steps that cannot be read."""
    lines = f"the lines of {steps} steps are" if steps > 1 else "the line of 1 step is"
    return f"{run.where(FOLDER)}: {lines} damaged or missing and left out of curves and rates; the run itself is not harmed"


def recent(run: Bucket, count: int) -> list[dict[str, Any]]:
    """The newest ``count`` steps, in order, as far as they can be read while rank 0 writes."""
    found: list[Record] = []
    for _, path in reversed(_segments(run, FOLDER)):
        found = read_steps(run, path)[0] + found
        if len(found) >= count:
            break
    return found[-count:]


def read_progress(run: Bucket) -> Record | None:
    """The progress note; None if there is none, or it is damaged."""
    note = next(iter(legible(run, PROGRESS)), {})
    found: Record = {"step_s": 0.0, "wait_s": 0.0} | only_sound(note, PROGRESS_MEMBERS)
    return found if {"step", "loss", "time_s"} <= found.keys() else None


def _segments(run: Bucket, folder: str) -> list[tuple[int, str]]:
    """First step and path of the objects in a folder, in order; none if there are none, or the last went while we looked."""
    with contextlib.suppress(StorageError):
        paths = [stored.path for stored in run.listing(folder)] if run.exists(folder) else []
        return sorted((int(found[1]), path) for path in paths if (found := _SEGMENT.match(path)))
    return []
