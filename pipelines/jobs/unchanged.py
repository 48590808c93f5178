"""Checks whether the sources of a published dataset still hold what it was made from, where names and sizes are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.names import NamedFile
from crossdim.pipelines.jobs.output import read_rows
from crossdim.pipelines.readers.raw import content_hash
from crossdim.pipelines.readers.registry import known_ending
from crossdim.pipelines.sources.ignored_names import match_ignored_name
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.manifest import MANIFEST_PATH, Manifest
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.pseudonym import PseudonymKey

#: Two clocks may differ by this much, in ns. Our choice.
_TWO_CLOCKS = 300 * 10**9
#: Stores tell whole seconds, filesystems whole ticks of the kernel's clock.
_ONE_SECOND = 10**9
_TICK = 2 * 10**7


def _slack_between(source: Bucket, out: Bucket) -> int:
    """By how many ns a time in a source may seem to be before one in the dataset that it is after."""
    if source.is_local and out.is_local:
        return _TICK
    same = not source.is_local and not out.is_local and source.options.endpoint_url == out.options.endpoint_url
    return _ONE_SECOND if same else _TWO_CLOCKS


class Contents:
    """The contents of source files, read only where no record tells them.

    Args:
        sources: as folders.
        recorded: rows of the table of names, by path; empty where there is none.
        out: the dataset.
    """

    def __init__(self, sources: Sequence[Bucket], recorded: Mapping[str, NamedFile], out: Bucket) -> None:
        self._sources = sources
        self._recorded = recorded
        (manifest,) = out.list_objects(MANIFEST_PATH)
        self._published_at = int(manifest.version) if out.is_local else manifest.changed_at
        self._slack = [_slack_between(source, out) for source in sources]

    def may_have_changed(self, file: SourceFile) -> bool:
        """Whether a file must be read again: its version is not the recorded one, or it was changed after the dataset.

        A copy that keeps modification times sets them back, so what counts is when the store wrote it, also where the recorded
        version is one. Clocks that may differ are no reason to trust it, only to read it again.
        """
        record = self._recorded.get(file.uri)
        if record is not None and record.version and (record.version != file.version or not self._sources[file.source].is_local):
            return record.version != file.version
        return self._is_later(file, self._slack[file.source])

    def seems_changed(self, file: SourceFile) -> bool:
        """The same for a file that no reading can tell of: by its recorded version, else as its store's clock has it."""
        record = self._recorded.get(file.uri)
        if record is not None and record.version:
            return record.version != file.version
        return self._is_later(file, 0)

    def _is_later(self, file: SourceFile, slack: int) -> bool:
        return bool(file.changed_at and self._published_at) and file.changed_at + slack > self._published_at

    def find_recorded_sha256(self, file: SourceFile) -> str:
        """The hash that a file had when it was prepared; empty if that is not recorded."""
        record = self._recorded.get(file.uri)
        return record.sha256 if record is not None else ""

    def is_recorded(self, file: SourceFile) -> bool:
        """Whether the hash of what a file holds now is known without reading it."""
        return bool(self.find_recorded_sha256(file)) and not self.may_have_changed(file)

    def sha256(self, file: SourceFile) -> str:
        """The hash of what a file holds now."""
        if self.is_recorded(file):
            return self.find_recorded_sha256(file)
        return hashlib.sha256(self._sources[file.source].read(file.path)).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Files that hold, or may hold, other content than a dataset was made from.

    Attributes:
        changed: files of each input that changed; the first of them is known to, or was written anew.
        unknown: files that no sample was made of, or whose names' table is gone, and that may have changed.
    """

    changed: tuple[tuple[SourceFile, ...], ...] = ()
    unknown: tuple[SourceFile, ...] = ()


def compare_contents(
    out: Bucket,
    manifest: Manifest,
    sources: Sequence[Bucket],
    files: Sequence[SourceFile],
    *,
    key: PseudonymKey | None = None,
    names: Iterable[NamedFile] = (),
    inputs: Mapping[str, str] | None = None,
    duplicates: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare files that may have been rewritten since a dataset was published with what it was made from.

    A file counts as rewritten if its version (modification time, ETag) is not the one in the table of names; without a
    table, if its store changed it after the dataset was published.

    Args:
        out: the dataset.
        manifest: of the dataset.
        sources: as folders.
        files: as they are listed now.
        key: with which the dataset's names are hashed.
        names: the table of names, where it is still there.
        inputs: the input of the dataset that each file belongs to, by its name in the listing, where that is recorded.
        duplicates: content of the inputs that were refused because another has it, by their names, where that is recorded.

    Returns:
        Files that changed, and those of which it is not known.
    """
    recorded, of_input = {one.path: one for one in names}, inputs or {}
    contents = Contents(sources, recorded, out)
    looked_at = [file for file in files if not match_ignored_name(file.path) and not file.problem]
    if not recorded and not any(map(contents.may_have_changed, looked_at)):
        return Comparison()
    rows = read_rows(out, manifest, "catalog", ["source_uri", "source_sha256"])
    known = {**(duplicates or {}), **{str(row["source_uri"]): str(row["source_sha256"]) for row in rows}}
    members_of: dict[str, list[SourceFile]] = {}
    others: list[SourceFile] = []
    for file in looked_at:
        # What was recorded of a file comes first: those of a series that were refused are no part of its volume.
        stated = of_input.get(file.uri)
        candidates = [stated] if stated else _names_of(file, recorded.get(file.uri), key)
        name = next((name for name in candidates if name in known), None)
        others += [file] if name is None else []
        if name is not None:
            members_of.setdefault(name, []).append(file)
    changed = [found for name, members in members_of.items() if (found := _find_changed(members, known[name], contents))]
    unknown: list[SourceFile] = []
    for file in others:
        before = contents.find_recorded_sha256(file)
        if not before:
            unknown += [file] if contents.seems_changed(file) else []
        elif contents.may_have_changed(file) and contents.sha256(file) != before:
            changed.append((file,))
    return Comparison(changed=tuple(changed), unknown=tuple(unknown))


def _names_of(file: SourceFile, record: NamedFile | None, key: PseudonymKey | None) -> list[str]:
    """The names that the catalog may have for a file's input."""
    names = [file.uri]
    if record is not None:
        names += [record.name, record.series]
    elif key is not None:
        names.append(key.name(file.uri, known_ending(file.path)))
    return names


def _find_changed(members: Sequence[SourceFile], sha256: str, contents: Contents) -> tuple[SourceFile, ...]:
    """The files of an input whose content is not that of the catalog, as far as they are known; none if nothing changed."""
    anew = [file for file in members if contents.may_have_changed(file)]
    if not anew and not all(map(contents.is_recorded, members)):
        return ()
    if content_hash(map(contents.sha256, members)) == sha256:
        return ()
    different = [file for file in anew if contents.sha256(file) != contents.find_recorded_sha256(file)]
    return tuple(different or anew[:1] or members[:1])


def describe_unknown(unknown: Sequence[SourceFile], out: Bucket) -> str:
    """Describe files of which it is not known whether they changed.

    Args:
        unknown: the files, at least one.
        out: the dataset.

    Returns:
        One sentence.
    """
    return (
        f"{count(len(unknown), 'file')} that no sample was made of, or whose names' table is gone, such as "
        f"{printable(unknown[0].uri)}, may have been written anew after it was published, and whether the content changed is not "
        f"known; if it did, use another --out, or delete {out.where('')} and prepare again"
    )
