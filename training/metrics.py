"""Metrics and events of a run, in its folder: one JSON line a step and the same numbers for TensorBoard; one note an event.

Lines are kept in segments that begin where a checkpoint ended (``metrics/00000030.jsonl`` begins with step 30). A run that
is resumed begins at such a border and writes from there again, so no step stands twice and none is missing.

Every ``time_s`` is the clock of the machine that rank 0 was on, in seconds since 1970.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from foundation.bucket import Bucket
from storage_schema.errors import RunError, StorageError, UnreachableError
from training.curves import Curves
from training.loop import StepRecord
from training.scribe import Scribe

FOLDER = "metrics"
PROGRESS = "progress.json"
EVENTS = "events"
BOARD = "tensorboard"
#: Seconds between writes of the open segment and of the progress note.
EVERY_S = 2.0

Kind = Literal["start", "resume", "passed-over", "checkpoint", "resize", "preempted", "asked", "lost", "failed", "stopped", "end"]
STARTS = ("start", "resume")
_EVENT = re.compile(rf"{EVENTS}/(\d+)-([a-z-]+)-(\d+)\.json\Z")


class MetricLog:
    """Rank 0's numbers. They are put into storage by the scribe, in order with what else it writes."""

    def __init__(self, run: Bucket, first_step: int, total: int, scribe: Scribe) -> None:
        self._run, self._total, self._scribe = run, total, scribe
        self._segment = first_step
        #: Steps that were told before this start, and are done again: at least so many were made in vain.
        self.done_again = self._forgotten_from(first_step)
        self._lines: list[str] = []
        self._written = 0.0
        self._curves = Curves(first_step)

    def _forgotten_from(self, step: int) -> int:
        """Remove what tells of steps that were done after the checkpoint we resumed from; how many they were."""
        told = [line["step"] for line in recent(self._run, 1)]
        paths = _listed(self._run, FOLDER)
        after = [path for path in paths if int(Path(path).stem) >= step]
        curves = [path for path in _listed(self._run, BOARD) if int(path.rpartition(".")[2]) >= step]
        for path in (*after, *curves):
            self._run.delete(path)
        # A checkpoint that a lost worker still wrote may lie inside what the next ones told.
        for path in paths[: len(paths) - len(after)][-1:]:
            text = self._run.read(path).decode()
            kept = "".join(line + "\n" for line in text.splitlines() if json.loads(line)["step"] < step)
            if kept != text:
                self._run.put(path, kept.encode())
        return max(0, told[-1] + 1 - step) if told else 0

    def add(self, record: StepRecord) -> None:
        """Note a step; now and then also in storage."""
        self._newest = record
        self._lines.append(json.dumps(asdict(record) | record.rates | {"time_s": time.time()}, sort_keys=True))
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
        self._scribe.write(put, PROGRESS, json.dumps(note).encode())
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


def read_metrics(run: Bucket) -> list[dict[str, Any]]:
    """Every step that a run has logged, in order."""
    segments = run.listing(FOLDER) if run.exists(FOLDER) else []
    return [json.loads(line) for stored in segments for line in run.read(stored.path).decode().splitlines()]


def recent(run: Bucket, count: int) -> list[dict[str, Any]]:
    """The newest ``count`` steps, in order, as far as they can be read while rank 0 writes."""
    lines: list[dict[str, Any]] = []
    for path in reversed(_listed(run, FOLDER)):
        lines = legible(run, path) + lines
        if len(lines) >= count:
            break
    return lines[-count:]


def legible(run: Bucket, path: str) -> list[dict[str, Any]]:
    """The JSON objects, one a line, that can be read: none of an object that is gone; a half-written line is left out."""
    found = []
    with contextlib.suppress(StorageError):
        for line in run.read(path).decode(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return [value for value in found if isinstance(value, dict)]


def _listed(run: Bucket, folder: str) -> list[str]:
    """Names in a folder, sorted; none if there is none, or its last object went while we looked."""
    with contextlib.suppress(StorageError):
        return [stored.path for stored in run.listing(folder)] if run.exists(folder) else []
    return []


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What the name of an event's object tells; ``step`` is the number of steps done."""

    path: str
    number: int
    kind: str
    step: int


def events(run: Bucket) -> list[Event]:
    """Every event of a run, in order: one listing, no object is read."""
    found = ((path, _EVENT.match(path)) for path in _listed(run, EVENTS))
    return [Event(path=path, number=int(m[1]), kind=m[2], step=int(m[3])) for path, m in found if m]


def begun(run: Bucket, happened: Sequence[Event]) -> dict[str, Any]:
    """What the newest start of a run noted; nothing if there is none, or it cannot be read yet."""
    starts = [event for event in happened if event.kind in STARTS]
    return next(iter(legible(run, starts[-1].path)), {}) if starts else {}


class EventLog:
    """Rank 0's diary: one small object an event, such as ``events/000007-checkpoint-00000300.json``.

    Numbers go on over all starts of a run, so names sort as things happened, whatever the clocks of its machines say.
    """

    def __init__(self, run: Bucket, workers: int) -> None:
        self._run, self._workers = run, workers
        self._number = self._started = max((event.number for event in events(run)), default=0)

    def fence(self) -> None:
        """Leave the run to a newer start of it.

        A worker that was cut off, and comes back, does not know that others went on without it.

        Raises:
            RunError: if there is a newer start.
        """
        newest = max((event.number for event in events(self._run) if event.kind in STARTS), default=0)
        if newest > self._started:
            raise RunError(f"{self._run.url} went on without this worker, which was cut off or taken for dead; it leaves")

    def add(self, kind: Kind, step: int, text: str = "", **numbers: float) -> None:
        """Note an event after ``step`` steps, with what else is counted."""
        self._number += 1
        if kind in STARTS:
            self._started = self._number
        note = {"kind": kind, "step": step, "text": text, "time_s": time.time(), "workers": self._workers} | numbers
        self._run.put(f"{EVENTS}/{self._number:06d}-{kind}-{step:08d}.json", json.dumps(note, sort_keys=True).encode())
