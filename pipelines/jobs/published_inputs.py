"""What a published dataset was made from: names and sizes of all files, recorded beside it for who adds data later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.jobs.items import Item
from crossdim.pipelines.jobs.names import SourceNames
from crossdim.pipelines.readers.registry import known_ending
from crossdim.pipelines.scratch import parse_checked, to_checked_bytes
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.storage_schema.versions import inputs_path

#: Settings that the record leaves out: a table may name patients, and what it says is compared input by input.
_BY_INPUT = frozenset({"labels"})


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFile:
    """One file of the sources.

    Attributes:
        name: in the dataset, hashed where names are.
        size: in bytes.
        problem: why it could not be read; empty if it could.
        input: name of the series that it belongs to; empty if it is an input by itself.
    """

    name: str
    size: int
    problem: str = ""
    input: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedInputs:
    """What a dataset was made from.

    Attributes:
        settings: the digest of each setting.
        files: of all sources, also those that were refused or ignored.
        duplicates: content of the inputs that were refused because another one has it, by their names.
        notes: what the plan had to say of inputs, by their names.
    """

    settings: dict[str, str]
    files: tuple[PublishedFile, ...]
    duplicates: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def members_by_input(self) -> dict[str, frozenset[str]]:
        """Names of the files of each input."""
        members: dict[str, set[str]] = defaultdict(set)
        for file in self.files:
            members[file.input or file.name].add(file.name)
        return {name: frozenset(found) for name, found in members.items()}

    def list_other_settings(self, settings: Mapping[str, Any]) -> list[str]:
        """The names of settings that are not those of the dataset, sorted."""
        now = digest_settings(settings)
        return sorted(name for name in self.settings.keys() | now.keys() if self.settings.get(name) != now.get(name))


def digest_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """The digest of each setting that is recorded, by name."""
    return {name: digest(value) for name, value in settings.items() if name not in _BY_INPUT}


def build_published_inputs(
    settings: Mapping[str, Any],
    files: Iterable[SourceFile],
    items: Iterable[Item],
    names: SourceNames,
    duplicates: Mapping[str, str],
) -> PublishedInputs:
    """Build the record of what a dataset is made from.

    Args:
        settings: by name, as JSON values.
        files: as listed.
        items: of the plan.
        names: of the files in the dataset.
        duplicates: content of the inputs that are refused because another one has it, by their names.

    Returns:
        The record: equal for equal inputs and settings, whenever and wherever they are.
    """
    named = list(items)
    placed = {(one.source, one.path): (one.uri, item.uri) for item in named for one in item.files}
    found = []
    for file in files:
        name, of_item = placed.get((file.source, file.path)) or (_name(file, names), "")
        found.append(PublishedFile(name=name, size=file.size, problem=file.problem, input="" if of_item == name else of_item))
    return PublishedInputs(
        settings=digest_settings(settings),
        files=tuple(sorted(found, key=lambda one: one.name)),
        duplicates=dict(duplicates),
        notes={item.uri: item.note for item in named if item.note is not None},
    )


def _name(file: SourceFile, names: SourceNames) -> str:
    hashed = names.key is not None and file.source in names.hashed
    return names.key.name(file.uri, known_ending(file.path)) if hashed and names.key else file.uri


def find_duplicates(contents: Iterable[tuple[str, str]], kept: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Find the inputs whose content is in the catalog under another name.

    Args:
        contents: name and content of each input that was decoded.
        kept: rows of the catalog.

    Returns:
        The content of these inputs, by their names.
    """
    names, known = {row["source_uri"] for row in kept}, {row["source_sha256"] for row in kept}
    return {uri: sha256 for uri, sha256 in sorted(contents) if uri not in names and sha256 in known}


def write_published_inputs(out: Bucket, plan_digest: str, record: PublishedInputs) -> None:
    """Write the record, before the manifest that has this digest of the request.

    Args:
        out: the dataset.
        plan_digest: the manifest's.
        record: to be written.
    """
    out.put(inputs_path(plan_digest), to_checked_bytes(to_document(record)))


def read_published_inputs(out: Bucket, plan_digest: str) -> PublishedInputs | None:
    """Read the record of a published dataset.

    Args:
        out: the dataset.
        plan_digest: the manifest's.

    Returns:
        The record; None for a dataset that was made before there were records.

    Raises:
        StorageError: if it was damaged.
    """
    path = inputs_path(plan_digest)
    if not out.exists(path):
        return None
    try:
        return from_document(PublishedInputs, parse_checked(out.read(path)), subject="record of inputs")
    except (ValueError, DocumentError) as error:
        raise StorageError(
            f"{out.where(path)}, the record of what {out.where('')} was made from, is damaged: {error}. "
            "Restore it, or use another --out"
        ) from error
