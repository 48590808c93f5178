"""The answer for a dataset that is published already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.manifest_file import find_version_number
from crossdim.pipelines.jobs.input_changes import InputChanges, find_changes, find_recorded_inputs
from crossdim.pipelines.jobs.names import NamedFile
from crossdim.pipelines.jobs.output import check_objects, count_rows, read_rows, refuse_other
from crossdim.pipelines.jobs.preparation import Preparation, PrepareResult
from crossdim.pipelines.jobs.published_inputs import PublishedInputs, read_published_inputs
from crossdim.pipelines.jobs.request import RequestDigests
from crossdim.pipelines.jobs.splits import count_parts, tell_parts
from crossdim.pipelines.jobs.unchanged import Comparison, compare_contents, describe_unknown
from crossdim.pipelines.markers import remove_scratch
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.pseudonym import PseudonymKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A published dataset beside the sources that it is asked for.

    Attributes:
        out: the dataset.
        manifest: of the dataset.
        record: of what it was made from; None where nobody recorded it.
        key: with which its names are hashed.
        named: the table of names.
        is_request: whether its inputs have the names and sizes of the files that are there, and its settings are those asked for.
    """

    out: Bucket
    manifest: Manifest
    record: PublishedInputs | None
    key: PseudonymKey | None
    named: tuple[NamedFile, ...]
    is_request: bool


def open_published(
    preparation: Preparation, manifest: Manifest, sources: Sequence[Bucket], files: Sequence[SourceFile]
) -> Published:
    """Read what is recorded of a published dataset, and refuse to go on with another key or other settings.

    Args:
        preparation: what is asked for.
        manifest: of the dataset.
        sources: as folders.
        files: as listed.

    Returns:
        The dataset, whose inputs may be others.

    Raises:
        StorageError: if the dataset was made in another way, or with another secret key.
    """
    out = preparation.out
    key = preparation.pseudonyms.find_key(sources[0]) if manifest.patient_key_id else None
    if manifest.patient_key_id and (key is None or key.key_id != manifest.patient_key_id):
        found = f"key id {key.key_id} is found" if key else "none is found"
        raise StorageError(
            f"{out.where('')} was made with the secret key whose key id is {manifest.patient_key_id}, and {found}; "
            "name its key with --salt-file, or use another --out"
        )
    request = RequestDigests(files, key)
    record = read_published_inputs(out, manifest.plan_digest)
    published = Published(
        out=out,
        manifest=manifest,
        record=record,
        key=key,
        named=tuple(preparation.pseudonyms.read_name_map(sources[0], manifest.plan_digest)) if key else (),
        is_request=manifest.plan_digest == request.digest_of(preparation.settings()),
    )
    if not published.is_request and (record is None or record.list_other_settings(preparation.settings())):
        _refuse_settings(preparation, published, request, len(files))
    check_objects(out, manifest)
    return published


def _refuse_settings(preparation: Preparation, published: Published, request: RequestDigests, num_files: int) -> NoReturn:
    settings, preprocessing = preparation.settings(), preparation.recipe.preprocessing()
    refuse_other(published.out, published.manifest, settings, preprocessing, request, num_files, published.record)


def find_input_changes(
    preparation: Preparation, published: Published, sources: Sequence[Bucket], files: Sequence[SourceFile]
) -> InputChanges | None:
    """Find how the inputs of a published dataset differ from the files that are there, which only ``--append`` accepts.

    Args:
        preparation: what is asked for.
        published: the dataset.
        sources: as folders.
        files: as listed.

    Returns:
        The differences, if there are any; without files if only labels differ. None if the dataset is what is asked for, so far
        as names and sizes tell, and with ``--append`` also contents.

    Raises:
        StorageError: if they differ and are not to be published, with the number of files that were added, changed and removed.
    """
    append = preparation.append
    if published.record is None or (published.is_request and not append):
        return None
    out, manifest = published.out, published.manifest
    changes = find_changes(out, manifest, published.record, sources, files, key=published.key, names=published.named)
    if append:
        return None if published.is_request and not changes else changes
    if not changes:
        _refuse_settings(preparation, published, RequestDigests(files, published.key), len(files))
    raise StorageError(
        f"{out.where('')} holds {manifest.name!r}, made from other files: {changes.describe()}. Repeat the command with "
        "--append to publish a version with what is there now, or with another --out to make a dataset of its own"
    )


def answer_published(
    preparation: Preparation, published: Published, sources: Sequence[Bucket], files: Sequence[SourceFile]
) -> PrepareResult:
    """Build the result for a dataset that is published already; nothing is scanned, and Ray is not started.

    Args:
        preparation: what is asked for.
        published: the dataset, which is what is asked for as far as names, sizes and settings tell.
        sources: as folders.
        files: as listed.

    Returns:
        What the dataset holds, and whether its sources still are what it was made of.

    Raises:
        StorageError: if its sources hold other content.
    """
    manifest = published.manifest
    inputs = find_recorded_inputs(published.record, files, published.key) if published.record else None
    compared = compare_contents(published.out, manifest, sources, files, key=published.key, names=published.named, inputs=inputs)
    _refuse_changed(published.out, compared)
    notes = [describe_unknown(compared.unknown, published.out)] if compared.unknown else []
    remove_scratch(preparation.out)
    parts = count_parts(read_rows(preparation.out, manifest, "catalog", ["key", "split", "patient", "source_sha256"]))
    quarantined, ignored, ignored_formats, unread = count_rows(preparation.out, manifest)
    paths = {one.name: one.path for one in published.named}
    unread = {kind: replace(one, example=paths.get(one.example, one.example)) for kind, one in unread.items()}
    return PrepareResult(
        manifest=manifest,
        quarantined=quarantined,
        ignored=ignored,
        ignored_formats=ignored_formats,
        unread=unread,
        already_published=True,
        parts=parts,
        notes=(*tell_parts(parts, preparation.split), *notes),
        version=find_version_number(published.out, manifest),
    )


def _refuse_changed(out: Bucket, compared: Comparison) -> None:
    if compared.changed:
        num_changed = sum(map(len, compared.changed))
        raise StorageError(
            f"the sources hold other content than {out.where('')} was made from: {count(len(compared.changed), 'input')}, "
            f"such as {printable(compared.changed[0][0].uri)}, changed after it was published; use another --out, "
            f"or --append to publish a version with what is there now (0 files added, {num_changed} changed, 0 gone)"
        )
