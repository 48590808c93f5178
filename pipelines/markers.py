"""Markers: small records of finished tasks. A task with a valid marker and all of its objects is not done again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.duplicates import Duplicate
from crossdim.pipelines.quarantine import Quarantined
from crossdim.pipelines.scratch import DRIVERS, INPUTS, PLAN, WORK, parse_checked, scratch_of, to_checked_bytes
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, ObjectEntry

logger = logging.getLogger(__name__)

_READERS = 16
_NAME = re.compile(r"(\d{6,})\.json\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRead:
    """One source file as a task read it; ``version`` is that of the listing."""

    source: int
    path: str
    size: int
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """One input that became samples, and the number of files that they were made from."""

    uri: str
    num_files: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """The record of a finished task: its objects, its rows of the dataset's tables, and the files that it read."""

    plan: str
    row: int
    objects: tuple[ObjectEntry, ...]
    catalog: tuple[dict[str, object], ...]
    quarantine: tuple[Quarantined, ...]
    used: tuple[Used, ...] = ()
    repeats: tuple[Duplicate, ...] = ()
    files: tuple[FileRead, ...] = ()

    def to_bytes(self) -> bytes:
        """The marker as it is stored: equal markers are equal bytes."""
        return to_checked_bytes(to_document(self))


def parse_marker(data: bytes) -> Marker:
    """Parse and check a marker.

    Raises:
        ValueError: for one that was cut or changed.
    """
    document = parse_checked(data)
    try:
        return from_document(Marker, document, subject="marker")
    except DocumentError as error:
        raise ValueError(str(error)) from error


def marker_path(plan_digest: str, row: int) -> str:
    """Path of a task's marker inside the dataset.

    Args:
        plan_digest: of the plan.
        row: number of the task in the plan.

    Returns:
        The path, in the folder of temporary data.
    """
    return f"{WORK}/{plan_digest[:16]}/{row:06d}.json"


def list_marker_paths(out: Bucket) -> list[str]:
    """List everything in the folder of temporary data that is named like a marker of some plan."""
    if not out.exists(WORK):
        return []
    others = (INPUTS, PLAN, f"{DRIVERS}/")
    return [entry.path for entry in out.list_objects(WORK) if not entry.path.startswith(others)]


def find_unfinished(out: Bucket) -> str:
    """What is to be deleted to begin a preparation anew, for messages: of a published dataset only its temporary data."""
    return out.where(WORK if out.exists(MANIFEST_PATH) else "")


def list_files_read(out: Bucket) -> dict[tuple[int, str], FileRead]:
    """Files as finished tasks of any plan have read them, by source and path; invalid markers are left out."""

    def read(path: str) -> tuple[FileRead, ...]:
        try:
            return parse_marker(out.read(path)).files
        except ValueError:
            return ()

    with ThreadPoolExecutor(_READERS) as readers:
        return {(file.source, file.path): file for files in readers.map(read, list_marker_paths(out)) for file in files}


def find_finished_rows(out: Bucket, plan_digest: str) -> dict[int, Marker]:
    """Find the markers of this plan's finished tasks. One that cannot be trusted is logged and left out: its task is done again.

    Args:
        out: the dataset.
        plan_digest: of the plan.

    Returns:
        The valid markers, by number of the task.

    Raises:
        StorageError: if another plan has been at work here, whose objects would be mixed with ours.
    """
    in_work = list_marker_paths(out)
    if not in_work:
        return {}
    sizes = {entry.path: entry.size for entry in out.list_objects()}
    ours = f"{WORK}/{plan_digest[:16]}/"
    strangers = sum(not path.startswith(ours) for path in in_work)
    if strangers:
        raise StorageError(
            f"{out.where(WORK)} holds {count(strangers, 'finished row')} of another plan: "
            f"inputs, recipe or secret key have changed. Use another --out, restore what was, or delete {find_unfinished(out)}"
        )
    rows = [int(named[1]) for path in in_work if (named := _NAME.fullmatch(path.removeprefix(ours)))]
    return {marker.row: marker for marker in _read_valid_markers(out, plan_digest, rows, sizes)}


def _read_valid_markers(out: Bucket, plan_digest: str, rows: Iterable[int], sizes: Mapping[str, int]) -> list[Marker]:
    """Markers that can be trusted, in order."""
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(lambda row: _read_valid_marker(out, plan_digest, row, sizes), sorted(rows))
        return [marker for marker in found if marker]


def _read_valid_marker(out: Bucket, plan_digest: str, row: int, sizes: Mapping[str, int]) -> Marker | None:
    """The marker of a row, if it can be trusted."""
    path = marker_path(plan_digest, row)
    try:
        marker = parse_marker(out.read(path))
    except ValueError as error:
        problem: str | None = str(error)
    else:
        problem = _find_problem(marker, plan_digest, row, sizes)
    if not problem:
        return marker
    logger.warning("%s is not trusted, so its row is done again: it %s", out.where(path), problem)
    return None


def _find_problem(marker: Marker, plan_digest: str, row: int, sizes: Mapping[str, int]) -> str | None:
    if (marker.plan, marker.row) != (plan_digest, row):
        return "belongs to another row or plan"
    for entry in marker.objects:
        if sizes.get(entry.path) != entry.size:
            found = f"has {sizes[entry.path]:,}" if entry.path in sizes else "is gone"
            return f"names {entry.path} with {entry.size:,} bytes, which {found}"
    return None


def remove_scratch(out: Bucket) -> None:
    """Remove the temporary data of a published dataset, also those of a run that died right after publishing; nothing else."""
    if not out.exists(WORK):
        return
    found = [scratch_of(entry.path) for entry in out.list_objects(WORK, problems=True)]
    if all(found):
        out.delete(WORK)
        return
    for place in sorted({place for place in found if place}):
        out.delete(place)


def read_markers(out: Bucket, plan_digest: str, rows: Iterable[int]) -> list[Marker]:
    """Read the markers of all tasks, each with its objects in place.

    Args:
        out: the dataset.
        plan_digest: of the plan.
        rows: numbers of the tasks.

    Returns:
        The markers, in order.

    Raises:
        StorageError: if one cannot be trusted; nothing may be published then.
    """
    wanted = list(rows)
    markers = _read_valid_markers(out, plan_digest, wanted, {entry.path: entry.size for entry in out.list_objects()})
    if len(markers) < len(wanted):
        raise StorageError(
            f"{len(wanted) - len(markers)} finished rows of {out.where('')} were changed or lost while others were written, so "
            "nothing is published; start the same command again, which writes them anew"
        )
    return markers


class Done(Protocol):
    """What became of inputs, in a task of this plan or in an earlier version of the dataset."""

    @property
    def catalog(self) -> Sequence[Mapping[str, object]]:
        """Rows of their samples."""

    @property
    def repeats(self) -> Sequence[Duplicate]:
        """Inputs whose content another one has."""


def list_contents(done: Iterable[Done]) -> list[tuple[str, str]]:
    """Name and sha256 of every input that was decoded, also of those whose content another one has."""
    each = list(done)
    found = {(str(row["source_uri"]), str(row["source_sha256"])) for one in each for row in one.catalog}
    return sorted(found | {(repeat.uri, repeat.sha256) for one in each for repeat in one.repeats})
