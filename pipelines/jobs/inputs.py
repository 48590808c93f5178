"""The inputs of an unfinished dataset: recorded when its preparation begins, and compared when it is resumed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.jobs.differences import describe_differences, list_likely_values
from crossdim.pipelines.markers import find_unfinished, list_files_read, list_marker_paths
from crossdim.pipelines.scratch import INPUTS, WORK, parse_checked, to_checked_bytes
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.storage_schema.names import printable

#: Changed files that a message names.
MAX_NAMES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file as it was listed; ``version`` changes when the content does."""

    uri: str
    size: int
    version: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a preparation began with: the digest of each setting, and all files."""

    settings: dict[str, str]
    files: tuple[InputFile, ...]


def build_inputs(settings: Mapping[str, Any], files: Iterable[SourceFile]) -> Inputs:
    """Build the record of what a preparation begins with.

    Args:
        settings: by name, as JSON values.
        files: as listed.

    Returns:
        A digest of each setting, and name, size and version of each file.
    """
    listed = (InputFile(uri=file.uri, size=file.size, version=file.version) for file in files)
    return Inputs(settings={name: digest(value) for name, value in settings.items()}, files=tuple(listed))


def check_inputs(out: Bucket, settings: Mapping[str, Any], sources: Sequence[Bucket], files: Sequence[SourceFile]) -> None:
    """Refuse to resume a preparation whose inputs have changed since it began.

    A file that was rewritten with equal bytes counts as unchanged if a finished task recorded its hash.

    Args:
        out: the dataset.
        settings: whatever decides the bytes besides the files.
        sources: as folders.
        files: as they are listed now.

    Raises:
        StorageError: naming the settings or files that differ: rows of both would be mixed.
    """
    now = build_inputs(settings, files)
    begun, before = bool(list_marker_paths(out)), _read_record(out)
    if begun and before is None:
        raise StorageError(
            f"{out.where(WORK)} holds finished rows of another plan, whose inputs are not recorded. "
            f"Use another --out, or delete {find_unfinished(out)}"
        )
    if begun and before is not None and before != now:
        _refuse_other_settings(out, before, now, settings)
        _refuse_other_files(out, before, now, sources, files)


def record_inputs(out: Bucket, settings: Mapping[str, Any], files: Sequence[SourceFile]) -> None:
    """Record what a preparation begins with, before its first task writes anything.

    Args:
        out: the dataset; the record is in its folder of temporary data.
        settings: by name, as JSON values.
        files: as listed.
    """
    now = build_inputs(settings, files)
    if _read_record(out) != now:
        out.put(INPUTS, to_checked_bytes(to_document(now)), private=True)


def _read_record(out: Bucket) -> Inputs | None:
    if not out.exists(INPUTS):
        return None
    try:
        return from_document(Inputs, parse_checked(out.read(INPUTS)), subject="record of inputs")
    except (ValueError, DocumentError) as error:
        raise StorageError(
            f"{out.where(INPUTS)}, the record of what this dataset is made from, is damaged, so nobody can say whether inputs "
            f"have changed: {error}. Delete {find_unfinished(out)} and start again"
        ) from error


def _refuse_other_settings(out: Bucket, before: Inputs, now: Inputs, settings: Mapping[str, Any]) -> None:
    names = before.settings.keys() | now.settings.keys()
    differing = sorted(name for name in names if before.settings.get(name) != now.settings.get(name))
    if differing:
        found = {
            name: value
            for name in differing
            for value in list_likely_values(name, settings.get(name))
            if digest(value) == before.settings.get(name)
        }
        described = describe_differences(found, {name: settings.get(name) for name in found})
        raise StorageError(
            f"{out.where('')} was begun with another {' and another '.join(differing)}, so this would be another plan: "
            f"start the command that it was begun with, or use another --out{f' ({described})' if described else ''}"
        )


def _refuse_other_files(
    out: Bucket,
    before: Inputs,
    now: Inputs,
    sources: Sequence[Bucket],
    files: Sequence[SourceFile],
) -> None:
    old, new = ({file.uri: file for file in one.files} for one in (before, now))
    written = [uri for uri in old.keys() & new.keys() if old[uri] != new[uri]]
    same_size = [uri for uri in written if old[uri].size == new[uri].size]
    if len(same_size) == len(written) and old.keys() == new.keys() and _equal(out, same_size, sources, files):
        were = "was" if len(written) == 1 else "were"
        sys.stderr.write(f"{count(len(written), 'file')} {were} written anew since this began, with the same content\n")
        return
    examples = [
        f"{printable(uri)} ({_format_version(old[uri])}; now {_format_version(new[uri])})" for uri in sorted(written)[:MAX_NAMES]
    ]
    examples += [f"{printable(uri)} (gone)" for uri in sorted(old.keys() - new.keys())[:MAX_NAMES]]
    examples += [f"{printable(uri)} (new)" for uri in sorted(new.keys() - old.keys())[:MAX_NAMES]]
    counts = f"{len(written)} changed, {len(old.keys() - new.keys())} gone, {len(new.keys() - old.keys())} new"
    raise StorageError(
        f"the inputs of {out.where('')} are others than when it was begun: {counts}, such as {', '.join(examples)}. They are not "
        "mixed: to go on, put back the files as they were, modification times too; or use another --out, or delete "
        f"{find_unfinished(out)} to begin anew with what is there now"
    )


def _equal(out: Bucket, uris: Iterable[str], sources: Sequence[Bucket], files: Sequence[SourceFile]) -> bool:
    """Whether each file has the content that a finished task read; False if no task read it."""
    known, named = list_files_read(out), {file.uri: file for file in files}
    found = [named[uri] for uri in uris]
    if not all((file.source, file.path) in known for file in found):
        return False
    return all(
        hashlib.sha256(sources[file.source].read(file.path)).hexdigest() == known[file.source, file.path].sha256 for file in found
    )


def _format_version(file: InputFile) -> str:
    """A version for people: a modification time in nanoseconds as a date, anything else as it is."""
    version = file.version or "unknown version"
    if file.version.isdigit() and len(file.version) > 15:
        version = f"modified {datetime.fromtimestamp(int(file.version) / 1e9, UTC).isoformat(sep=' ', timespec='milliseconds')}"
    return f"{file.size:,} bytes, {version}"
