"""Events: what happened to a run, as one small object each in its folder, in one order whoever wrote them.

Rank 0, the controller and the driver write events, each under a name of its own. Before it writes, a writer looks at what is
there, and takes the number after the highest (Lamport's clock, with the folder as the messages): an event has a higher number
than every event that was stored before its writer looked, whatever the clocks of their machines say. Events that were written
at the same time may have one number; the writers' names order these, for every reader alike.

Objects are named ``events/000007-rank0.5f3a9c1d-checkpoint-00000300.json``: number, writer, kind, steps done. Names without a
writer are of releases that had one numbering for each writer; they are read as they are numbered.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal
from uuid import uuid4

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, StorageError
from crossdim.training.run_dir.records import Check, Record, is_count, is_seconds, is_text, legible, only_sound, record_text

EVENTS = "events"
Kind = Literal[
    "start",
    "resume",
    "passed-over",
    "damaged",
    "reread",
    "checkpoint",
    "resize",
    "preempted",
    "asked",
    "lost",
    "failed",
    "stopped",
    "end",
]
STARTS = ("start", "resume")
#: Members of an event's record that readers use, beside what its name tells.
MEMBERS: dict[str, Check] = {
    "text": is_text,
    "time_s": is_seconds,
    "workers": is_count,
    "in_vain": is_count,
    "samples": is_count,
    "held_s": is_seconds,
    "written_s": is_seconds,
}
_NAME = re.compile(rf"{EVENTS}/(\d{{1,15}})-(?:([a-z0-9]+\.[0-9a-f]{{8}})-)?([a-z-]+)-(\d{{1,15}})\.json\Z")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What the name of an event's object tells; ``step`` is the number of steps done, ``writer`` is empty in older runs."""

    path: str
    number: int
    writer: str
    kind: str
    step: int

    @property
    def place(self) -> tuple[int, str]:
        """What events are sorted by."""
        return self.number, self.writer


def events(run: Bucket) -> list[Event]:
    """Every event of a run, in order: one listing, no object is read; none if the folder cannot be listed."""
    with contextlib.suppress(StorageError):
        return _stored(run)
    return []


def _stored(run: Bucket) -> list[Event]:
    paths = [stored.path for stored in run.listing(EVENTS)] if run.exists(EVENTS) else []
    found = ((path, _NAME.match(path)) for path in paths)
    told = (Event(path=path, number=int(m[1]), writer=m[2] or "", kind=m[3], step=int(m[4])) for path, m in found if m)
    return sorted(told, key=lambda event: (event.place, event.path))


def read_event(run: Bucket, event: Event) -> Record:
    """What is written of an event; what its name tells alone where that is damaged or cannot be read yet."""
    return only_sound(next(iter(legible(run, event.path)), {}), MEMBERS) | {"kind": event.kind, "step": event.step}


def begun(run: Bucket, happened: Sequence[Event]) -> Record:
    """What the newest start of a run noted; nothing if there is none."""
    starts = [event for event in happened if event.kind in STARTS]
    return read_event(run, starts[-1]) if starts else {}


class EventLog:
    """One writer's part of the events of a run.

    Args:
        run: its folder.
        workers: that the run has; noted with every event.
        role: of the writer: ``rank0``, ``controller``, ``driver``.
    """

    def __init__(self, run: Bucket, workers: int, role: str = "rank0") -> None:
        self._run, self._workers = run, workers
        self._writer = f"{role}.{uuid4().hex[:8]}"
        self._number = max((event.number for event in _stored(run)), default=0)
        self._started = (self._number + 1, "")  # after every start that is there, before every newer one

    def fence(self) -> None:
        """Leave the run to a newer start of it.

        A worker that was cut off, and comes back, does not know that others went on without it.

        Raises:
            RunError: if there is a newer start.
        """
        newest = max((event.place for event in _stored(self._run) if event.kind in STARTS), default=(0, ""))
        if newest > self._started:
            raise RunError(f"{self._run.where('')} went on without this worker, which was cut off or taken for dead; it leaves")

    def add(self, kind: Kind, step: int, text: str = "", **numbers: float) -> None:
        """Note an event after ``step`` steps, with what else is counted."""
        self._number = 1 + max([self._number, *(event.number for event in _stored(self._run))])
        if kind in STARTS:
            self._started = (self._number, self._writer)
        note = {"kind": kind, "step": step, "text": text, "time_s": time.time(), "workers": self._workers} | numbers
        self._run.put(f"{EVENTS}/{self._number:06d}-{self._writer}-{kind}-{step:08d}.json", record_text(note).encode())


class Rereads:
    """Samples that came right only when they were read once more: threads that read tell of them, events count them."""

    def __init__(self) -> None:
        self._told: SimpleQueue[str] = SimpleQueue()

    def tell(self, text: str) -> None:
        """Of one sample."""
        _LOG.warning("%s", text)
        self._told.put(text)

    def take(self) -> list[str]:
        """What was told since the last time."""
        taken: list[str] = []
        with contextlib.suppress(Empty):
            while True:
                taken.append(self._told.get_nowait())
        return taken
