"""How the inputs of a published dataset differ from the files that are there now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.names import NamedFile
from crossdim.pipelines.jobs.published_inputs import PublishedInputs
from crossdim.pipelines.jobs.unchanged import compare_contents
from crossdim.pipelines.readers.registry import known_ending
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.pseudonym import PseudonymKey

#: Files that a message names of each kind.
MAX_NAMES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class InputChanges:
    """Files that were added, changed and removed since a dataset was published.

    Attributes:
        added: as listed.
        changed: as listed; of another size or, at equal size, of another content.
        gone: names as people know them: paths where a table of names leads to them.
        names: of the files of the dataset that are there as they were, by source and path.
    """

    added: tuple[SourceFile, ...] = ()
    changed: tuple[SourceFile, ...] = ()
    gone: tuple[str, ...] = ()
    names: dict[tuple[int, str], str]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.gone)

    def __str__(self) -> str:
        return f"{count(len(self.added), 'file')} added, {len(self.changed)} changed, {len(self.gone)} gone"

    def describe(self) -> str:
        """The counts, and the first names of each kind."""
        kinds = {
            "added": [file.uri for file in self.added],
            "changed": [file.uri for file in self.changed],
            "gone": list(self.gone),
        }
        first = [f"{kind}: {', '.join(map(printable, names[:MAX_NAMES]))}" for kind, names in kinds.items() if names]
        return " ".join([str(self), *([f"({'; '.join(first)})"] if first else [])])


def find_changes(
    out: Bucket,
    manifest: Manifest,
    record: PublishedInputs,
    sources: Sequence[Bucket],
    files: Sequence[SourceFile],
    *,
    key: PseudonymKey | None = None,
    names: Iterable[NamedFile] = (),
) -> InputChanges:
    """Compare the files of the sources with those that a dataset was made from.

    Files of equal size are read only where they may have been written anew since the dataset was published.

    Args:
        out: the dataset.
        manifest: of the dataset.
        record: of the dataset.
        sources: as folders.
        files: as they are listed now.
        key: with which the dataset's names are hashed.
        names: the table of names, where it is still there.

    Returns:
        The differences.
    """
    before, table = {one.name: one for one in record.files}, list(names)
    placed, added = _place_files(record, files, key)
    changed = {name for name, file in placed.items() if (file.size, file.problem) != (before[name].size, before[name].problem)}
    whole = _find_whole_inputs(record, placed.keys() - changed)
    same = {placed[name].uri: name for name in whole}
    compared = compare_contents(
        out,
        manifest,
        sources,
        [placed[name] for name in whole],
        key=key,
        names=table,
        inputs={uri: before[name].input or name for uri, name in same.items()},
        duplicates=record.duplicates,
    )
    changed |= {same[file.uri] for members in compared.changed for file in members}
    paths = {one.name: one.path for one in table}
    return InputChanges(
        added=tuple(added),
        changed=tuple(placed[name] for name in sorted(changed)),
        gone=tuple(sorted(paths.get(name, name) for name in before.keys() - placed.keys())),
        names={(file.source, file.path): name for name, file in placed.items() if name not in changed},
    )


def find_recorded_inputs(record: PublishedInputs, files: Sequence[SourceFile], key: PseudonymKey | None) -> dict[str, str]:
    """Find the input of a dataset that each file belongs to.

    Args:
        record: of the dataset.
        files: as they are listed now.
        key: with which the dataset's names are hashed.

    Returns:
        Names of inputs, by the files' names in the listing; files that are not recorded are left out.
    """
    inputs = {one.name: one.input or one.name for one in record.files}
    return {file.uri: inputs[name] for name, file in _place_files(record, files, key)[0].items()}


def _place_files(
    record: PublishedInputs, files: Sequence[SourceFile], key: PseudonymKey | None
) -> tuple[dict[str, SourceFile], list[SourceFile]]:
    """Files that are recorded, by their names in the dataset, and others."""
    before = {one.name for one in record.files}
    placed: dict[str, SourceFile] = {}
    added: list[SourceFile] = []
    for file in files:
        name = next((name for name in _names_of(file, key) if name in before), None)
        if name is None:
            added.append(file)
        else:
            placed[name] = file
    return placed, added


def _names_of(file: SourceFile, key: PseudonymKey | None) -> tuple[str, ...]:
    return (file.uri,) if key is None else (file.uri, key.name(file.uri, known_ending(file.path)))


def _find_whole_inputs(record: PublishedInputs, there: Collection[str]) -> list[str]:
    """Names of files that are there together with all others of their input; what is left of a series is another input."""
    groups = record.members_by_input().values()
    return sorted(name for group in groups if group.issubset(there) for name in group)
