"""Attempts of a run: each command that worked on it, with what, from when to when, and how it ended. Nothing depends on them.

An attempt is one object, written where it starts and again where it ends. One without an end is at work, or was killed, or its
machine was lost. Names begin with the time, so that their order is that of the attempts.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.process_identity import ProcessIdentity, identify_process
from crossdim.foundation.provenance import describe_outcome, format_time
from crossdim.foundation.settings import from_document, to_document
from crossdim.storage_schema.errors import DocumentError, StorageError, UsageError
from crossdim.storage_schema.names import printable
from crossdim.training.run_dir.layout import ATTEMPTS, attempt_path, is_attempt_path
from crossdim.training.run_dir.records import Check, Record, is_count, is_text, keep_valid, read_records, record_text

_LOG = logging.getLogger(__name__)
#: Newest attempts that are looked through for a process that may still be at work.
MAX_READ = 3
#: Members of an attempt's record; ``provenance`` is what ``crossdim.foundation.provenance`` records.
MEMBERS: dict[str, Check] = {
    "started": is_text,
    "ended": is_text,
    "outcome": is_text,
    "step": is_count,
    "provenance": lambda value: isinstance(value, dict),
    "process": lambda value: isinstance(value, dict),
}


class AttemptRecord:
    """Context in which a run is worked on: it records its start and how it ends. A store that refuses that stops no run.

    Args:
        run: folder of the run.
        step: steps done before.
        provenance: of this command.
    """

    def __init__(self, run: Bucket, step: int, provenance: Mapping[str, Any] | None = None) -> None:
        started = format_time()
        self._run, self._path = run, attempt_path(started, uuid4().hex[:8])
        self._note: Record = {"started": started, "step": step, "provenance": dict(provenance or {})}
        self._note |= {"process": to_document(identify_process())}

    def __enter__(self) -> Self:
        self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._note |= {"ended": format_time(), "outcome": describe_outcome(error)}
        self._write()

    def _write(self) -> None:
        try:
            self._run.put(self._path, record_text(self._note).encode())
        except StorageError as error:
            _LOG.warning("this attempt of the run is not recorded: %s", error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """The attempts of a run.

    Attributes:
        number: of all of them.
        newest: records of the newest ones, at most :data:`MAX_READ`, oldest first.
    """

    number: int
    newest: tuple[Record, ...]

    @property
    def last(self) -> Record | None:
        """The newest of all; None in runs of older versions."""
        return self.newest[-1] if self.newest else None

    def is_killed(self) -> bool:
        """Whether the processes of all newest attempts without an end are known to be gone; of other machines none is."""
        processes = self._find_open()
        return bool(processes) and all(process is not None and process.is_gone() for process in processes)

    def find_running(self) -> ProcessIdentity | None:
        """Another process of this machine that is at work on the run; None if none is known."""
        mine = identify_process()
        running = (process for process in self._find_open() if process is not None and process.is_running())
        return next((process for process in running if process != mine), None)

    def _find_open(self) -> list[ProcessIdentity | None]:
        """Processes of the newest attempts that have no end; None for one that did not record it."""
        return [identify(attempt) for attempt in self.newest if attempt and "ended" not in attempt]


def read_attempts(run: Bucket) -> Attempts:
    """Read the newest attempts of a run."""
    paths = list_attempts(run)
    return Attempts(number=len(paths), newest=tuple(read_attempt(run, path) for path in paths[-MAX_READ:]))


def check_not_trained(run: Bucket) -> None:
    """Refuse a run that another process of this machine trains; of other machines this cannot be known.

    Where it is not known, the newer command goes on with the run, and an older one ends when it notices that: after a machine was
    lost, the same command has to work at once.

    Raises:
        UsageError: naming the process.
    """
    if (process := read_attempts(run).find_running()) is not None:
        where = run.where("")
        raise UsageError(
            f"{where} is being trained by {process}: follow it with crossdim status {shlex.quote(where)}, or stop it first with "
            f"kill -INT {process.pid}, or choose another --out. With --force this command goes on from the last checkpoint, and "
            "the other ends"
        )


def list_attempts(run: Bucket) -> list[str]:
    """List the objects of a run's attempts, oldest first; none if the folder cannot be listed."""
    with contextlib.suppress(StorageError):
        if run.exists(ATTEMPTS):
            return sorted(one.path for one in run.list_objects(ATTEMPTS) if is_attempt_path(one.path))
    return []


def read_attempt(run: Bucket, path: str) -> Record:
    """Read an attempt.

    Args:
        run: folder of the run.
        path: as listed.

    Returns:
        Its valid members; none if its object is damaged or gone.
    """
    return keep_valid(next(iter(read_records(run, path)), {}), MEMBERS)


def identify(attempt: Record) -> ProcessIdentity | None:
    """The process of an attempt; None where none is recorded."""
    with contextlib.suppress(DocumentError):
        if "process" in attempt:
            found: ProcessIdentity = from_document(ProcessIdentity, attempt["process"], subject="process of an attempt")
            return found
    return None


def describe_attempt(attempt: Record) -> str:
    """Describe an attempt: from when to when, from which step, and how it ended."""
    started = f"{attempt.get('started', 'at an unknown time')} from step {attempt.get('step', 'unknown')}"
    if "ended" not in attempt:
        process = identify(attempt)
        gone = f": {process} does not run any more" if process and process.is_gone() else ""
        return printable(f"{started}, no end is recorded{gone}")
    return printable(f"{started} to {attempt['ended']}, {attempt.get('outcome', 'with an unknown outcome')}")
