"""Reads how a preparation is doing from the folder of its dataset alone, from any machine. Imports no Ray and no reader.

Whether anybody is at work is told by the records of the processes that prepare it (``driver_record``). Times are those of the
store: of its objects, or of the files. Silence compares them with the reader's clock.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from crossdim.foundation.bucket import Bucket, StoredObject
from crossdim.foundation.counts import count
from crossdim.foundation.location import format_location, hide_secrets
from crossdim.foundation.manifest_file import find_version_number
from crossdim.foundation.rates import format_seconds
from crossdim.pipelines.driver_record import FoundDriver, read_drivers
from crossdim.pipelines.markers import parse_marker
from crossdim.pipelines.plan_record import PlanRecord, read_plan_record
from crossdim.pipelines.scratch import DRIVERS, WORK
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, parse_manifest
from crossdim.storage_schema.names import printable

#: Seconds after which a process whose record was not written again is not at work: six of its writes. Our choice.
ALIVE_S = 60.0
#: A preparation is silent after this long without progress, or after as many tasks' time if that is longer. Our choice.
SILENT_AFTER_S, SILENT_AFTER_TASKS = 300.0, 10
#: Newest tasks that the time between tasks is taken from.
WINDOW = 100
#: Markers are read, for what their tasks quarantined, up to this number and size: a second's work in a far store. Our choice.
MAX_MARKERS, MAX_MARKER_BYTES, READERS = 200, 8_000_000, 16
_MARKER = re.compile(rf"{WORK}/([0-9a-f]{{16}})/\d{{6,}}\.json\Z")

State = Literal["preparing", "silent", "stopped", "failed", "published"]
#: In these states nothing happens any more; and states for which ``crossdim status`` has exit code 0.
ENDED, GOOD = ("published", "stopped", "failed"), ("preparing", "published")
#: What to do about a preparation that does not get on by itself.
REMEDIES: dict[State, str] = {
    "silent": "if no process prepares it any more, run the same prepare command again; it resumes",
    "stopped": "to resume, run the same prepare command again",
    "failed": "once the cause is fixed, run the same prepare command again; it resumes",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparationStatus:
    """A preparation at a glance; None where something is not known.

    Attributes:
        state: ``stopped`` by a signal, or because its process is gone; ``failed`` with an error; ``silent`` if nothing was
            heard for long: its process or machine was lost, or one task takes very long.
        reason: of a preparation that is stopped, failed or silent.
        processes: at work on it.
        tasks_done: of ``tasks``; both None once the dataset is published.
        samples: of the published dataset.
        files: in the sources.
        quarantined: inputs, so far; None while that would take many requests to know.
        last_progress_s: when something was last written, by the store's clock, in seconds since 1970.
        silence_s: from then until now, by the reader's clock.
        version: of the dataset that is published or made.
        published: the version before, where this one is added.
    """

    dataset: str
    state: State
    reason: str = ""
    processes: tuple[str, ...] = ()
    tasks: int | None = None
    tasks_done: int | None = None
    samples: int | None = None
    files: int | None = None
    quarantined: int | None = None
    last_progress_s: float | None = None
    silence_s: float | None = None
    version: int = 1
    published: PreparationStatus | None = None

    def __str__(self) -> str:
        if self.tasks_done is None:
            progress = count(self.samples or 0, "sample")
        else:
            progress = (
                count(self.tasks_done, "task") if self.tasks is None else f"{self.tasks_done} of {count(self.tasks, 'task')}"
            )
            progress += " done"
        version = f"version {self.version} " if self.version > 1 else ""
        if self.state == "preparing" and self.tasks is None and not self.tasks_done:
            progress = "its sources are being scanned"
        reason = f": {printable(self.reason)}" if self.reason else ""
        lines = [f"{format_location(self.dataset)}: {version}{self.state}, {progress}{reason}"]
        known = [] if self.files is None else [f"{count(self.files, 'file')} in the sources"]
        if self.quarantined is not None:
            so_far = "" if self.state == "published" else " so far"
            known.append(f"{count(self.quarantined, 'input')} quarantined{so_far}")
        lines += [f"  {', '.join(known)}"] if known else []
        if self.silence_s is not None:
            lines.append(
                f"  {'published' if self.state == 'published' else 'last progress'} {format_seconds(self.silence_s)} ago"
            )
        if len(self.processes) > 1:
            lines.append(f"  {len(self.processes)} processes prepare it at once: {', '.join(map(printable, self.processes))}")
        if (remedy := REMEDIES.get(self.state)) is not None:
            lines.append(f"  {remedy}")
        if self.published is not None:
            lines.append(f"  version {self.published.version} is published, {count(self.published.samples or 0, 'sample')}")
        return "\n".join(lines)


def is_dataset(out: Bucket) -> bool:
    """Whether a folder holds a dataset, published or in preparation."""
    return out.exists(MANIFEST_PATH) or out.exists(WORK)


def read_preparation_status(out: Bucket, now: float) -> PreparationStatus:
    """Read how a preparation is doing.

    Args:
        out: the folder of the dataset.
        now: the reader's clock, in seconds since 1970.

    Returns:
        State, tasks done, and the last progress.

    Raises:
        StorageError: if there is no dataset, or the store does not answer.
        DocumentError: if the manifest cannot be read.
    """
    published = _read_published(out, now) if out.exists(MANIFEST_PATH) else None
    if published is not None and not _is_added_to(out, published):
        return published
    try:
        stored = out.list_objects(WORK)
    except StorageError:
        if out.exists(MANIFEST_PATH):  # published just now, whereupon temporary data are removed
            return _read_published(out, now)
        raise
    record = read_plan_record(out)
    markers = _find_markers(stored, record)
    drivers = read_drivers(out, stored)
    last = max((one.changed_at for one in stored if not one.path.startswith(f"{DRIVERS}/")), default=0) / 1e9
    silence_s = max(0.0, now - last) if last else None
    state, reason = _find_state(drivers, now, silence_s or 0.0, _find_limit(markers))
    return PreparationStatus(
        dataset=hide_secrets(out.url),
        state=state,
        reason=reason,
        processes=tuple(str(one.record.process) for one in drivers if _is_at_work(one, now)),
        tasks=record.tasks if record else None,
        tasks_done=len(markers),
        files=record.files if record else None,
        quarantined=_count_quarantined(out, markers, record),
        last_progress_s=last or None,
        silence_s=silence_s,
        version=record.version if record else 1,
        published=published,
    )


def _is_at_work(driver: FoundDriver, now: float) -> bool:
    record = driver.record
    return not record.outcome and not record.process.is_gone() and now - driver.written_s <= ALIVE_S


def _find_state(drivers: Sequence[FoundDriver], now: float, silence_s: float, limit_s: float) -> tuple[State, str]:
    """The state, and its reason: by the processes at work, else by the one that wrote last; of none, by what was written."""
    if not drivers or any(_is_at_work(one, now) for one in drivers):
        return ("silent", "no task was finished for long") if silence_s > limit_s else ("preparing", "")
    newest = drivers[0].record
    if newest.outcome:
        return newest.outcome, f"by {newest.reason}" if newest.outcome == "stopped" else newest.reason
    if newest.process.is_gone():
        return "stopped", f"{newest.process} ended without a word, as if it was killed"
    return "silent", f"no sign of life from {newest.process} for {format_seconds(now - drivers[0].written_s)}"


def _is_added_to(out: Bucket, published: PreparationStatus) -> bool:
    """Whether another version is in preparation; what a preparation leaves that died right after publishing is of this one."""
    record = read_plan_record(out)
    return record is not None and record.version > published.version


def _read_published(out: Bucket, now: float) -> PreparationStatus:
    manifest = parse_manifest(out.read_document(MANIFEST_PATH), out.where(MANIFEST_PATH))
    (stored,) = out.list_objects(MANIFEST_PATH)
    published_s = stored.changed_at / 1e9
    return PreparationStatus(
        dataset=hide_secrets(out.url),
        state="published",
        samples=manifest.num_samples,
        files=manifest.files.total if manifest.files else None,
        quarantined=manifest.num_quarantined,
        version=find_version_number(out, manifest),
        last_progress_s=published_s or None,
        silence_s=max(0.0, now - published_s) if published_s else None,
    )


def _find_markers(stored: Sequence[StoredObject], record: PlanRecord | None) -> list[StoredObject]:
    """The markers of the plan's finished tasks; of every plan if it is not known."""
    named = [(one, found[1]) for one in stored if (found := _MARKER.match(one.path))]
    return [one for one, plan in named if record is None or plan == record.plan[:16]]


def _find_limit(markers: Sequence[StoredObject]) -> float:
    """Seconds without progress after which a preparation is silent. The median passes over the time between two starts."""
    times = sorted(one.changed_at / 1e9 for one in markers if one.changed_at)[-WINDOW:]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return max(SILENT_AFTER_S, SILENT_AFTER_TASKS * statistics.median(gaps)) if gaps else SILENT_AFTER_S


def _count_quarantined(out: Bucket, markers: Sequence[StoredObject], record: PlanRecord | None) -> int | None:
    if record is None or len(markers) > MAX_MARKERS or sum(one.size for one in markers) > MAX_MARKER_BYTES:
        return None
    with ThreadPoolExecutor(READERS) as readers:
        return record.refused + sum(readers.map(lambda one: _read_num_quarantined(out, one.path), markers))


def _read_num_quarantined(out: Bucket, path: str) -> int:
    try:
        return len(parse_marker(out.read(path)).quarantine)
    except ValueError:  # its task is done again
        return 0
