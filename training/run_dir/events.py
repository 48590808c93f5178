"""Reads and writes events: what happened to a run, as one small object each in its folder, in one order whoever wrote them.

Rank 0, the controller and the driver write events, each under a name of its own. Before it writes, a writer looks at what is
there, and takes the number after the highest (Lamport's clock, with the folder as the messages): an event has a higher number
than every event that was stored before its writer looked, whatever the clocks of their machines say. Events that were written
at the same time may have one number; the writers' names order these, for every reader alike.

Objects are named ``events/000007-rank0.5f3a9c1d-checkpoint-00000300.json``: number, writer, kind, steps done. Names without a
writer are of releases that had one numbering for each writer; they are read as they are numbered.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.training.run_dir.layout import EVENTS, EventName, event_path, parse_event_path
from crossdim.training.run_dir.records import Check, Record, is_count, is_seconds, is_text, keep_valid, read_records, record_text

Kind = Literal[
    "start",
    "resume",
    "passed-over",
    "damaged",
    "reread",
    "collapse",
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


def list_events(run: Bucket) -> list[Event]:
    """List every event of a run, in order, without reading one.

    Raises:
        StorageError: if the store does not answer, or does not let its folder be listed.
    """
    paths = [stored.path for stored in run.list_objects(EVENTS)] if run.exists(EVENTS) else []
    found = [Event(path=path, **name._asdict()) for path in paths if (name := parse_event_path(path))]
    return sorted(found, key=lambda event: (event.place, event.path))


def read_event(run: Bucket, event: Event) -> Record:
    """Read an event.

    Args:
        run: folder of the run.
        event: as listed.

    Returns:
        Its valid members; only kind and step, which are in its name, if its object is damaged or cannot be read yet.
    """
    return keep_valid(next(iter(read_records(run, event.path)), {}), MEMBERS) | {"kind": event.kind, "step": event.step}


def read_newest_start(run: Bucket, happened: Sequence[Event]) -> Record:
    """Read the newest event of a start.

    Args:
        run: folder of the run.
        happened: the events, oldest first.

    Returns:
        The event; an empty record if there is none.
    """
    starts = [event for event in happened if event.kind in STARTS]
    return read_event(run, starts[-1]) if starts else {}


class EventLog:
    """Adds events to a run, as one writer of several.

    Args:
        run: its folder.
        workers: that the run has; a member of every event.
        role: of the writer: ``rank0``, ``controller``, ``driver``.
    """

    def __init__(self, run: Bucket, workers: int, role: str = "rank0") -> None:
        self._run, self._workers = run, workers
        self._writer = f"{role}.{uuid4().hex[:8]}"
        self._number = max((event.number for event in list_events(run)), default=0)
        self._started = (self._number + 1, "")  # after every start that is there, before every newer one

    def fence(self) -> None:
        """Raise an error if a newer start of the run has taken over.

        A worker that was cut off, and comes back, does not know that others went on without it.

        Raises:
            RunError: if there is a newer start.
        """
        newest = max((event.place for event in list_events(self._run) if event.kind in STARTS), default=(0, ""))
        if newest > self._started:
            raise RunError(f"{self._run.where('')} went on without this worker, which was cut off or taken for dead; it leaves")

    def add(self, kind: Kind, step: int, text: str = "", **numbers: float) -> None:
        """Add an event.

        Args:
            kind: what happened.
            step: steps done.
            text: for people.
            **numbers: further members, see :data:`MEMBERS`.
        """
        self._number = 1 + max([self._number, *(event.number for event in list_events(self._run))])
        if kind in STARTS:
            self._started = (self._number, self._writer)
        note = {"kind": kind, "step": step, "text": text, "time_s": time.time(), "workers": self._workers} | numbers
        self._run.put(event_path(EventName(self._number, self._writer, kind, step)), record_text(note).encode())
