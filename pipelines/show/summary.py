"""What a published dataset holds, from its manifest and tables alone: no voxel is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import find_version_number, read_manifest
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.patient import known_patient
from crossdim.storage_schema.tables import parse_published_columns

#: Reasons that are shown of each rule.
EXAMPLES = 3
#: Columns of the catalog that a summary or a page needs.
CATALOG_COLUMNS = (
    *("key", "object", "offset", "length", "encoding", "shape", "dtype", "crc32c", "slope", "intercept", "unit_low", "unit_high"),
    *("image_height", "image_width", "spacing_mm", "origin_zyx", "volume_shape", "modality", "patient", "split", "label"),
    *("source_uri", "source_sha256", "part", "note"),
)
NO_LABEL = "without a label"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """The manifest of a dataset and its tables, of which every byte was checked.

    Attributes:
        version: its number; 1 where nothing was ever added.
    """

    version: int = 1
    manifest: Manifest
    catalog: pa.Table
    quarantine: pa.Table
    ignored: pa.Table


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleCount:
    """A rule by which inputs were refused or files ignored: how many, and the first reasons."""

    rule: str
    num_inputs: int
    num_files: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSummary:
    """What a dataset holds.

    Attributes:
        num_inputs: images, series or volumes that samples were made of.
        shapes: number of samples by shape and dtype.
        spacings: number of inputs by voxel size, such as ``1 x 1 x 1 mm``.
        sizes: number of inputs by size of the image or volume.
        num_unknown_patients: inputs whose patient is not known: each counts as a patient.
        largest_patient: samples of the patient who has most.
        labels: number of samples by label and split.
        splits: samples and patients of each split.
        shared_patients: patients in more than one split.
        shared_inputs: inputs, by content, in more than one split.
        notes: number of inputs by note.
        version: of the format.
        dataset_version: number of the version; 1 where nothing was ever added.
    """

    name: str
    presentation: str
    version: int
    dataset_version: int
    num_samples: int
    num_inputs: int
    num_bytes: int
    num_objects: int
    files: dict[str, int]
    modalities: dict[str, int]
    shapes: dict[str, int]
    spacings: dict[str, int]
    sizes: dict[str, int]
    num_patients: int
    num_unknown_patients: int
    largest_patient: int
    labels: dict[str, dict[str, int]]
    splits: dict[str, dict[str, int]]
    shared_patients: int
    shared_inputs: int
    notes: dict[str, int]
    quarantined: tuple[RuleCount, ...]
    ignored: tuple[RuleCount, ...]


def read_tables(dataset: Bucket, version: int | None = None) -> Tables:
    """Read the manifest and the tables of a dataset.

    Args:
        dataset: where it is published.
        version: of the dataset; None for the newest.

    Returns:
        The tables; ``num_files`` of a quarantine of version 1 is 1.

    Raises:
        StorageError: if it is not published, or a table is not what was published.
    """
    manifest = read_manifest(dataset, version)
    quarantine = _read(dataset, manifest, "quarantine", ("uri", "stage", "rule", "reason", "num_files"))
    if "num_files" not in quarantine.column_names:
        quarantine = quarantine.append_column("num_files", pa.array([1] * quarantine.num_rows, pa.int32()))
    return Tables(
        version=version or find_version_number(dataset, manifest),
        manifest=manifest,
        catalog=_read(dataset, manifest, "catalog", CATALOG_COLUMNS),
        quarantine=quarantine,
        ignored=_read(dataset, manifest, "ignored", ("uri", "format", "rule", "reason")),
    )


def _read(dataset: Bucket, manifest: Manifest, role: str, columns: tuple[str, ...]) -> pa.Table:
    try:
        parts = [
            parse_published_columns(dataset.read(entry.path), entry, dataset.where(entry.path), columns)
            for entry in manifest.with_role(role)
        ]
    except StorageError as error:
        raise StorageError(
            f"a part of {dataset.where('')} cannot be read: {error}; crossdim verify lists all that is wrong"
        ) from error
    return pa.concat_tables(parts) if parts else pa.table({name: pa.array([], pa.string()) for name in columns})


def summarise(tables: Tables) -> DatasetSummary:
    """Count what a dataset holds."""
    manifest, catalog = tables.manifest, tables.catalog
    inputs = take_first_of_each(catalog, "source_uri")
    patients = _count(catalog["patient"])
    files = manifest.files
    return DatasetSummary(
        name=manifest.name,
        presentation=str(manifest.presentation),
        version=manifest.version,
        dataset_version=tables.version,
        num_samples=manifest.num_samples,
        num_inputs=inputs.num_rows,
        num_bytes=sum(entry.size for entry in manifest.objects),
        num_objects=len(manifest.objects),
        files={"total": files.total, "used": files.used, "quarantined": files.quarantined, "ignored": files.ignored}
        if files
        else {},
        modalities=_count(catalog["modality"]),
        shapes=_count_shapes(catalog),
        spacings=_count_texts(map(describe_spacing, inputs["spacing_mm"].to_pylist())),
        sizes=_count_texts(map(describe_size, inputs.select(["volume_shape", "image_height", "image_width"]).to_pylist())),
        num_patients=len(patients),
        num_unknown_patients=sum(known_patient(row) is None for row in inputs.select(["patient", "source_sha256"]).to_pylist()),
        largest_patient=max(patients.values(), default=0),
        labels=_count_labels(catalog),
        splits=_count_splits(catalog),
        shared_patients=_count_shared(catalog, "patient"),
        shared_inputs=_count_shared(catalog, "source_sha256"),
        notes=_count(inputs["note"]),
        quarantined=_count_rules(tables.quarantine),
        ignored=_count_rules(tables.ignored),
    )


def take_first_of_each(table: pa.Table, column: str) -> pa.Table:
    """Take the first row of each value of a column.

    Args:
        table: with the column.
        column: its name.

    Returns:
        The rows, in the order of the table.
    """
    numbered = table.select([column]).append_column("row", pa.array(range(table.num_rows), pa.int64()))
    first = numbered.group_by(column).aggregate([("row", "min")])["row_min"].combine_chunks()
    return table.take(first.sort())


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    """Number of each value that is not null, the most frequent first."""
    counts = ((one["values"], one["counts"]) for one in pc.value_counts(column.drop_null()).to_pylist())
    return dict(sorted(counts, key=lambda one: (-one[1], str(one[0]))))


def _count_texts(texts: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(texts).items(), key=lambda one: (-one[1], one[0])))


def _count_shapes(catalog: pa.Table) -> dict[str, int]:
    """Number of samples by shape and dtype; Arrow joins the numbers, because there may be millions of rows."""
    shapes = pc.binary_join(pc.cast(catalog["shape"], pa.list_(pa.string())), " x ")
    counts = _count(pc.binary_join_element_wise(shapes, catalog["dtype"], " "))
    return {
        f"{shape} {np.dtype(dtype).name}": number for text, number in counts.items() for shape, _, dtype in [text.rpartition(" ")]
    }


def describe_spacing(spacing_mm: list[float] | None) -> str:
    """A voxel size in words, such as ``1 x 0.5 x 0.5 mm``; ``unknown`` for None."""
    return f"{' x '.join(f'{side:.4g}' for side in spacing_mm)} mm" if spacing_mm else "unknown"


def describe_size(row: dict[str, Any]) -> str:
    """The size of an input in words, from its ``volume_shape`` or ``image_height`` and ``image_width``."""
    if row["volume_shape"]:
        return " x ".join(map(str, row["volume_shape"]))
    return f"{row['image_height']} x {row['image_width']}" if row["image_height"] else "as stored"


def _count_labels(catalog: pa.Table) -> dict[str, dict[str, int]]:
    labels = pc.fill_null(catalog["label"], NO_LABEL)
    pairs = pa.table({"label": labels, "split": catalog["split"]}).group_by(["label", "split"]).aggregate([([], "count_all")])
    counts: dict[str, dict[str, int]] = {}
    for row in sorted(pairs.to_pylist(), key=lambda row: (row["label"] == NO_LABEL, row["label"], row["split"])):
        counts.setdefault(row["label"], {})[row["split"]] = row["count_all"]
    return counts


def _count_splits(catalog: pa.Table) -> dict[str, dict[str, int]]:
    columns = ["split", "patient", "source_uri", "source_sha256"]
    unknown = catalog.select(columns).group_by(columns).aggregate([]).to_pylist()
    unknown_patients = Counter(split for split, _ in {(r["split"], r["patient"]) for r in unknown if known_patient(r) is None})
    grouped = catalog.select(["split", "patient", "source_uri"]).group_by("split")
    rows = grouped.aggregate([([], "count_all"), ("patient", "count_distinct"), ("source_uri", "count_distinct")]).to_pylist()
    return {
        row["split"]: {
            "samples": row["count_all"],
            "inputs": row["source_uri_count_distinct"],
            "patients": row["patient_count_distinct"] - unknown_patients[row["split"]],
            "unknown_patients": unknown_patients[row["split"]],
        }
        for row in sorted(rows, key=lambda row: row["split"], reverse=True)
    }


def _count_shared(catalog: pa.Table, column: str) -> int:
    """Values of a column that rows of more than one split have."""
    splits = catalog.select([column, "split"]).group_by(column).aggregate([("split", "count_distinct")])
    return int(pc.sum(pc.greater(splits["split_count_distinct"], 1)).as_py() or 0)


def _count_rules(table: pa.Table) -> tuple[RuleCount, ...]:
    rules = []
    for rule, number in _count(table["rule"]).items():
        rows = table.filter(pc.equal(table["rule"], rule))
        files = int(pc.sum(rows["num_files"]).as_py()) if "num_files" in rows.column_names else number
        first = rows.slice(0, EXAMPLES).select(["uri", "reason"]).to_pylist()
        examples = tuple((row["uri"], row["reason"]) for row in first)
        rules.append(RuleCount(rule=rule, num_inputs=number, num_files=files, examples=examples))
    return tuple(rules)
