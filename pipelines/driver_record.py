"""Records of the processes that prepare a dataset, beside the markers of its tasks: who is at work, and how it ended.

Each process writes its record when it begins and every :data:`BEAT_S` seconds after, so that its age tells whether it is
alive; a process that is interrupted or fails writes how. Of one that is killed, the record stays as it is.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from crossdim.foundation.bucket import Bucket, StoredObject
from crossdim.foundation.process_identity import ProcessIdentity, identify_process
from crossdim.foundation.provenance import describe_failure, find_stop
from crossdim.foundation.settings import from_document, to_document
from crossdim.foundation.threads import repeat_in_thread
from crossdim.pipelines.scratch import DRIVERS, PLAN, WORK, parse_checked, to_checked_bytes
from crossdim.storage_schema.errors import DocumentError, StorageError

_LOG = logging.getLogger(__name__)
#: Seconds between two writes of a record. Our choice: one small request.
BEAT_S = 10.0
#: A store that does not answer a process that ends is asked again for so long.
PATIENCE_S = 2.0
_RECORD = re.compile(rf"{DRIVERS}/[0-9a-f]{{32}}\.json\Z")

Outcome = Literal["", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverRecord:
    """One process that prepares a dataset.

    Attributes:
        process: which it is.
        outcome: how it ended; empty while it is at work, or if it had no time to say.
        reason: of the outcome, a signal or a sentence.
    """

    process: ProcessIdentity
    outcome: Outcome = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundDriver:
    """A record as it was found.

    Attributes:
        record: what it says.
        written_s: when it was last written, by the store's clock, in seconds since 1970.
    """

    record: DriverRecord
    written_s: float


@contextlib.contextmanager
def record_driver(out: Bucket) -> Iterator[None]:
    """Record this process as one that prepares a dataset, inside a ``with`` block.

    Args:
        out: the dataset.

    Yields:
        Nothing. After the block the record is removed; if an error ends it, the record says so, unless there is nothing yet
        that could be gone on with.
    """
    path, record = f"{DRIVERS}/{uuid.uuid4().hex}.json", DriverRecord(process=identify_process())
    _remove_ended(out)
    _write(out, path, record)
    try:
        with repeat_in_thread("driver record", BEAT_S, lambda: _write_again(out, path, record)):
            yield
    finally:
        error = sys.exception()
        patient = out.with_patience(PATIENCE_S)
        try:
            if error is None or not out.exists(PLAN):
                _remove(patient, [path])
            else:
                _write(patient, path, _describe_end(record, error))
        except StorageError as fault:  # what ended the block is what people need to read
            _LOG.debug("the record of this process could not be written: %s", fault)


def read_drivers(out: Bucket, stored: Iterable[StoredObject]) -> list[FoundDriver]:
    """Read the records of processes that prepare a dataset, the newest first.

    Args:
        out: the dataset.
        stored: the objects of its temporary data.

    Returns:
        Those that can be read; one may be removed meanwhile.
    """
    found = []
    for one in stored:
        if _RECORD.match(one.path):
            with contextlib.suppress(StorageError, ValueError, DocumentError):
                record = from_document(DriverRecord, parse_checked(out.read(one.path)), subject="record of a process")
                found.append(FoundDriver(record=record, written_s=one.changed_at / 1e9))
    return sorted(found, key=lambda driver: driver.written_s, reverse=True)


def _describe_end(record: DriverRecord, error: BaseException) -> DriverRecord:
    if stop := find_stop(error):
        return replace(record, outcome="stopped", reason=stop)
    return replace(record, outcome="failed", reason=describe_failure(error))


def _write(out: Bucket, path: str, record: DriverRecord) -> None:
    out.put(path, to_checked_bytes(to_document(record)), private=True)


def _write_again(out: Bucket, path: str, record: DriverRecord) -> None:
    try:
        _write(out.with_patience(0), path, record)
    except StorageError as error:  # the next write may succeed; work that needs the store finds out by itself
        _LOG.debug("the record of this process could not be written: %s", error)


def _remove_ended(out: Bucket) -> None:
    """Remove the records of processes that have ended; those of other machines stay, for they may be at work."""
    stored: list[StoredObject] = []
    with contextlib.suppress(StorageError):  # another process may remove them all meanwhile
        stored = out.list_objects(DRIVERS) if out.exists(DRIVERS) else []
    for one in stored:
        found = read_drivers(out, [one])
        if found and (found[0].record.outcome or found[0].record.process.is_gone()):
            out.delete_exactly([one.path])


def _remove(out: Bucket, paths: Iterable[str]) -> None:
    out.delete_exactly(paths)
    if out.is_local:
        out.at(WORK).delete_empty_folders()
