"""The commit: finished rows gathered into catalog, quarantine and, last of all, the manifest."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet

from foundation.bucket import Bucket
from foundation.settings import to_document
from pipelines.quarantine import Quarantined
from pipelines.repeats import Repeat, settle_repeats
from pipelines.sinks.bank import ZARR_DOCUMENT, bank_document
from pipelines.sinks.packed import PackedObject
from storage_schema.bank import BankLayout
from storage_schema.catalog import CATALOG_SCHEMA, QUARANTINE_SCHEMA, table_of
from storage_schema.digest import canonical_json
from storage_schema.errors import StorageError
from storage_schema.manifest import MANIFEST_PATH, FileCounts, Manifest, ObjectEntry
from storage_schema.names import printable
from storage_schema.vocabulary import Presentation

#: Scratch of a dataset that is being written; gone once it is published.
WORK = "_work"
_OF_PLAN = re.compile(rf"({WORK}/[0-9a-f]{{16}})/")
ROWS_PER_PART = 100_000  # ours: some 30 MB, one request to load
_READERS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """What a finished row leaves: proof of its objects, its share of catalog and quarantine, and inputs that repeat others."""

    row: int
    objects: tuple[ObjectEntry, ...]
    catalog: tuple[dict[str, object], ...]
    quarantine: tuple[Quarantined, ...]
    repeats: tuple[Repeat, ...] = ()

    def to_bytes(self) -> bytes:
        """As stored: equal markers are equal bytes."""
        return canonical_json(
            {
                "row": self.row,
                "objects": to_document(self.objects),
                "catalog": list(self.catalog),
                "quarantine": to_document(self.quarantine),
                "repeats": to_document(self.repeats),
            }
        )


def parse_marker(data: bytes) -> Marker:
    """Read a marker of our own."""
    document = json.loads(data)
    return Marker(
        row=document["row"],
        objects=tuple(ObjectEntry(**entry) for entry in document["objects"]),
        catalog=tuple(document["catalog"]),
        quarantine=tuple(Quarantined(**row) for row in document["quarantine"]),
        repeats=tuple(Repeat(**row) for row in document["repeats"]),
    )


def marker_path(plan_digest: str, row: int) -> str:
    """Path of a row's marker inside the dataset."""
    return f"{WORK}/{plan_digest[:16]}/{row:06d}.json"


def finished_rows(out: Bucket, plan_digest: str) -> frozenset[int]:
    """Rows of this plan that are written already.

    Raises:
        StorageError: if another plan has been at work here, whose objects would be mixed with ours.
    """
    if not out.exists(WORK):
        return frozenset()
    ours, strangers = f"{WORK}/{plan_digest[:16]}/", 0
    rows = []
    for entry in out.listing(WORK):
        if entry.path.startswith(ours):
            rows.append(int(entry.path.removeprefix(ours).removesuffix(".json")))
        else:
            strangers += 1
    if strangers:
        raise StorageError(
            f"{out.where(WORK)} holds {strangers} finished rows of another plan: inputs, recipe or secret key have changed. "
            f"Use another --out, restore what was, or delete {out.url}"
        )
    return frozenset(rows)


def remove_scratch(out: Bucket) -> None:
    """Remove the scratch of a published dataset, also what a run left that died right after its commit; nothing of others."""
    if not out.exists(WORK):
        return
    found = [_OF_PLAN.match(entry.path) for entry in out.listing(WORK, problems=True)]
    if all(found):
        out.delete(WORK)
        return
    for folder in sorted({match[1] for match in found if match}):
        out.delete(folder)


def read_markers(out: Bucket, plan_digest: str, rows: Iterable[int]) -> list[Marker]:
    """Markers of all rows, in order."""
    with ThreadPoolExecutor(_READERS) as readers:
        texts = readers.map(lambda row: out.read(marker_path(plan_digest, row)), sorted(rows))
        return [parse_marker(text) for text in texts]


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file, in memory."""
    buffer = io.BytesIO()
    pa.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def table_objects(role: str, rows: Sequence[dict[str, object]], schema: pa.Schema) -> list[PackedObject]:
    """Rows as the Parquet parts of one role; one empty part if there are none."""
    starts = range(0, max(len(rows), 1), ROWS_PER_PART)
    return [
        PackedObject(
            path=f"{role}/part-{number:05d}.parquet",
            role=role,
            data=parquet_bytes(table_of(rows[start : start + ROWS_PER_PART], schema)),
            rows=(),
        )
        for number, start in enumerate(starts)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Title:
    """What a manifest says besides its objects."""

    name: str
    presentation: Presentation
    preprocessing: dict[str, object]
    plan_digest: str
    num_files: int
    num_files_ignored: int
    patient_key_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bank:
    """The bank of a volume dataset: its path and shapes."""

    path: str
    layout: BankLayout
    num_shards: int

    def document(self) -> PackedObject:
        """Its ``zarr.json``."""
        return PackedObject(
            path=f"{self.path}/{ZARR_DOCUMENT}", role="bank", data=bank_document(self.layout, self.num_shards), rows=()
        )


def publish(
    out: Bucket, title: Title, markers: Sequence[Marker], refused: Sequence[Quarantined], bank: Bank | None
) -> tuple[Manifest, list[Quarantined]]:
    """Write catalog, quarantine and bank document, and commit with the manifest.

    Args:
        out: the dataset.
        title: what it is.
        markers: of all rows, in order.
        refused: inputs that were refused before they came into a row.
        bank: of a volume dataset.

    Returns:
        The manifest, and all quarantine rows.

    Raises:
        StorageError: if no sample is left; then nothing is committed.
    """
    kept, repeats = settle_repeats(
        (row for marker in markers for row in marker.catalog), (repeat for marker in markers for repeat in marker.repeats)
    )
    quarantine = [*refused, *(one for marker in markers for one in marker.quarantine), *repeats]
    if not kept:
        raise StorageError(f"no input became a sample, so {out.url} is not published. {told(quarantine)}")
    packed = table_objects("catalog", kept, CATALOG_SCHEMA)
    packed += table_objects("quarantine", [one.row() for one in quarantine], QUARANTINE_SCHEMA)
    packed += [bank.document()] if bank else []
    entries = [entry for marker in markers for entry in marker.objects] + [put(out, one).entry for one in packed]
    manifest = Manifest(
        name=title.name,
        presentation=title.presentation,
        num_samples=len(kept),
        num_quarantined=len(quarantine),
        preprocessing=title.preprocessing,
        plan_digest=title.plan_digest,
        objects=tuple(sorted(entries, key=lambda entry: entry.path)),
        files=_count_files(title, quarantine),
        patient_key_id=title.patient_key_id,
    )
    out.put(MANIFEST_PATH, manifest.to_bytes())
    return manifest, quarantine


def _count_files(title: Title, quarantine: Sequence[Quarantined]) -> FileCounts:
    quarantined = sum(one.num_files for one in quarantine)
    used = title.num_files - title.num_files_ignored - quarantined
    return FileCounts(total=title.num_files, used=used, quarantined=quarantined, ignored=title.num_files_ignored)


def told(quarantine: Sequence[Quarantined]) -> str:
    """The first refusal, in a sentence, as an example of all."""
    if not quarantine:
        return "None of the files is of a format that the recipe reads."
    first = quarantine[0]
    return f"{len(quarantine)} were refused; the first, {printable(first.uri)}, at {first.stage}: {first.reason} [{first.rule}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """An object that is stored: its bytes are let go of, what the dataset says of it stays."""

    entry: ObjectEntry
    rows: tuple[dict[str, object], ...]


def put(out: Bucket, packed: PackedObject) -> Written:
    """Write one object, whole."""
    out.put(packed.path, packed.data)
    return Written(entry=packed.entry(), rows=packed.rows)
