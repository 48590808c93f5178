"""Publishing: finished tasks are gathered into catalog, quarantine and ignored tables, and the manifest is written last."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import publish_next_version
from crossdim.pipelines.duplicates import settle_duplicates
from crossdim.pipelines.markers import Marker
from crossdim.pipelines.quarantine import Ignored, Quarantined
from crossdim.pipelines.reused import Reused
from crossdim.pipelines.sinks.bank import ZARR_DOCUMENT, build_bank_document
from crossdim.pipelines.sinks.packed import PackedObject
from crossdim.storage_schema.bank import BankLayout
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, IGNORED_SCHEMA, QUARANTINE_SCHEMA, build_table
from crossdim.storage_schema.errors import CrossdimError, GeometryError, NoSampleError
from crossdim.storage_schema.manifest import MANIFEST_PATH, FileCounts, Manifest, ObjectEntry
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.versions import table_part_path
from crossdim.storage_schema.vocabulary import Presentation

ROWS_PER_PART = 100_000  # our choice: about 30 MB, loaded with one request


def encode_parquet(table: pa.Table) -> bytes:
    """Encode a table as one Parquet file, in memory."""
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def build_table_objects(role: str, rows: Sequence[dict[str, object]], schema: pa.Schema, mark: str = "") -> list[PackedObject]:
    """Build the Parquet parts of one table.

    Args:
        role: of the objects, which is also their folder.
        rows: of the table.
        schema: of the table.
        mark: of the version, in the names of the parts.

    Returns:
        Parts of at most ``ROWS_PER_PART`` rows; one empty part if there are no rows.
    """
    starts = range(0, max(len(rows), 1), ROWS_PER_PART)
    return [
        PackedObject(
            path=table_part_path(role, number, mark),
            role=role,
            data=encode_parquet(build_table(rows[start : start + ROWS_PER_PART], schema)),
            rows=(),
        )
        for number, start in enumerate(starts)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestHeader:
    """The fields of a manifest other than its objects."""

    name: str
    presentation: Presentation
    preprocessing: dict[str, object]
    plan_digest: str
    num_files: int
    patient_key_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bank:
    """The bank of a volume dataset: its path and shapes."""

    path: str
    layout: BankLayout
    num_shards: int

    def document(self) -> PackedObject:
        """Its ``zarr.json`` as an object."""
        return PackedObject(
            path=f"{self.path}/{ZARR_DOCUMENT}", role="bank", data=build_bank_document(self.layout, self.num_shards), rows=()
        )


def publish(
    out: Bucket,
    header: ManifestHeader,
    markers: Sequence[Marker],
    refused: Sequence[Quarantined],
    ignored: Sequence[Ignored],
    bank: Bank | None,
    readable: Callable[[str], str] = str,
    check: Callable[[Sequence[dict[str, object]]], None] | None = None,
    *,
    reused: Reused | None = None,
    mark: str = "",
) -> tuple[Manifest, list[Quarantined]]:
    """Write catalog, quarantine, ignored files and bank document, and publish them by writing the manifest.

    Args:
        out: the dataset.
        header: what the manifest says besides its objects.
        markers: of all rows, in order.
        refused: inputs that were refused before they came into a row.
        ignored: files that are no inputs.
        bank: of a volume dataset.
        readable: puts paths for hashed names into a sentence that is not published.
        check: may refuse the rows of the catalog before anything is committed.
        reused: what is taken over from the version before; None for the first version.
        mark: of the version, in the names of its objects.

    Returns:
        The manifest, and all quarantine rows.

    Raises:
        NoSampleError: if no sample is left; then nothing is committed.
        CrossdimError: if a file of the sources has no outcome, or more than one.
    """
    kept, used, refused_later = _settle([*([reused] if reused else []), *markers])
    quarantine = [*refused, *refused_later]
    files = count_files(header.num_files, used, quarantine, ignored)
    if not kept:
        recorded = f"no input became a sample, so {out.where('')} is not published. {describe_refusals(quarantine)}"
        raise NoSampleError(readable(recorded), recorded)
    if check is not None:
        check(kept)
    packed = build_table_objects("catalog", kept, CATALOG_SCHEMA, mark)
    packed += build_table_objects("quarantine", [one.row() for one in quarantine], QUARANTINE_SCHEMA, mark)
    packed += build_table_objects("ignored", [one.row() for one in ignored], IGNORED_SCHEMA, mark)
    entries = [entry for marker in markers for entry in marker.objects]
    if reused:
        named = {str(row["object"]) for row in kept}
        entries = [entry for entry in entries if entry.path in named]
        bank = bank if entries else None
    packed += [bank.document()] if bank else []
    entries += [put(out, one).entry for one in packed]
    entries += reused.list_entries(named) if reused else []
    manifest = Manifest(
        name=header.name,
        presentation=header.presentation,
        num_samples=len(kept),
        num_quarantined=len(quarantine),
        preprocessing=header.preprocessing,
        plan_digest=header.plan_digest,
        objects=tuple(sorted(entries, key=lambda entry: entry.path)),
        files=files,
        patient_key_id=header.patient_key_id,
    )
    if reused:
        publish_next_version(out, reused.previous, manifest, reused.version)
    else:
        out.put(MANIFEST_PATH, manifest.to_bytes())
    return manifest, quarantine


def _settle(done: Sequence[Reused | Marker]) -> tuple[list[dict[str, object]], list[int], list[Quarantined]]:
    """Rows of the catalog, numbers of files of the inputs that they are of, and what was refused since the plan.

    A sample that is published keeps its name, unless more is known of another of the same content.
    """
    used = {one.uri: one.num_files for each in done for one in each.used}
    kept, duplicates = settle_duplicates(
        (row for each in done for row in each.catalog),
        (duplicate for each in done for duplicate in each.repeats),
        used,
    )
    for one in duplicates:
        used.pop(one.uri, None)  # its samples are not kept
    return kept, list(used.values()), [*(one for each in done for one in each.quarantine), *duplicates]


def count_files(num_files: int, used: Iterable[int], quarantine: Iterable[Quarantined], ignored: Sequence[Ignored]) -> FileCounts:
    """Count what became of every file.

    Args:
        num_files: of the sources.
        used: files of each item that samples were made from.
        quarantine: inputs that were refused, each with its number of files.
        ignored: one row per file.

    Returns:
        The counts, which add up.

    Raises:
        CrossdimError: if a file has no outcome, or more than one: then a row was lost.
    """
    counts = {"used": sum(used), "quarantined": sum(one.num_files for one in quarantine), "ignored": len(ignored)}
    try:
        return FileCounts(total=num_files, **counts)
    except GeometryError as error:
        raise CrossdimError(
            f"not every file has exactly one outcome: {error}. Nothing is published. This is crossdim's fault; please report it"
        ) from error


def describe_refusals(quarantine: Sequence[Quarantined]) -> str:
    """Describe how many inputs each rule refused, the most frequent first, with one of them and its reason."""
    if not quarantine:
        return "None of the files is of a format that the recipe reads."
    numbers, firsts = Counter(one.rule for one in quarantine), {one.rule: one for one in reversed(quarantine)}
    were = "1 was" if len(quarantine) == 1 else f"{len(quarantine)} were"
    examples = [
        f"{f'{number} by {rule}; the first' if len(numbers) > 1 else 'the first'}, {printable(firsts[rule].uri)}, "
        f"at {firsts[rule].stage}: {firsts[rule].reason} [{rule}]"
        for rule, number in numbers.most_common()
    ]
    return f"{were} refused; {'; '.join(examples)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenObject:
    """An object that is stored: its manifest entry and catalog rows, without its bytes."""

    entry: ObjectEntry
    rows: tuple[dict[str, object], ...]


def put(out: Bucket, packed: PackedObject) -> WrittenObject:
    """Write one object, completely or not at all.

    Args:
        out: the dataset.
        packed: path and bytes.

    Returns:
        Its manifest entry and catalog rows.
    """
    out.put(packed.path, packed.data)
    return WrittenObject(entry=packed.entry(), rows=packed.rows)
