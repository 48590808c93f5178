"""The catalog: one Arrow row per sample, enough to fetch its bytes with one range request and to know what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute

from crossdim.storage_schema.bank import CRC_BYTES
from crossdim.storage_schema.errors import DocumentError, Problem
from crossdim.storage_schema.patient import patient_or_content
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import FORMAT_VERSION, Encoding, Modality, Presentation, Split

CATALOG_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("presentation", pa.string(), nullable=False),
        pa.field("object", pa.string(), nullable=False),  # path inside the dataset
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("crc32c", pa.uint32(), nullable=False),  # of the range, see drop_checksum()
        pa.field("encoding", pa.string(), nullable=False),
        pa.field("position", pa.int64()),  # index n in the bank; null in shards
        pa.field("shape", pa.list_(pa.int32()), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("slope", pa.float64(), nullable=False),
        pa.field("intercept", pa.float64(), nullable=False),
        pa.field("unit_low", pa.float64(), nullable=False),
        pa.field("unit_high", pa.float64(), nullable=False),
        pa.field("image_height", pa.int32()),  # of the image behind a pseudo-3D sample
        pa.field("image_width", pa.int32()),
        pa.field("spacing_mm", pa.list_(pa.float64())),
        pa.field("affine", pa.list_(pa.float64())),  # 4 x 4 row by row: (d, h, w, 1) -> (right, anterior, superior) mm
        pa.field("origin_zyx", pa.list_(pa.int32())),
        pa.field("volume_shape", pa.list_(pa.int32())),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("patient", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("foreground", pa.float64()),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("note", pa.string()),  # what a reader decided on the way in, such as "first of 30 frames"
        pa.field("burned_in_annotation", pa.bool_()),  # DICOM's statement; null where the header makes none
        pa.field("preprocessing_digest", pa.string(), nullable=False),
    ]
)

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("num_files", pa.int32()),  # of the input: the slices of a series; null in version 1
    ]
)

IGNORED_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

#: Columns that version 2 added to the catalog and to the quarantine; tables of version 1 are read without them.
ADDED_IN_VERSION_2 = frozenset({"burned_in_annotation", "num_files"})

#: Columns that hold words of a closed list.
WORDS: dict[str, type[StrEnum]] = {"presentation": Presentation, "encoding": Encoding, "modality": Modality, "split": Split}


def drop_checksum(data: bytes, encoding: Encoding) -> bytes:
    """Return the part of a stored range that the catalog's crc32c covers.

    A chunk of the bank ends with its own crc32c, and the crc32c over a message followed by its crc32c is the same number for
    every message: it would not tell two superpatches apart. So those last bytes are left out.

    Args:
        data: the stored range.
        encoding: of the range, as the catalog states it.

    Returns:
        ``data`` of a ``.npy``; ``data`` without its last 4 bytes of a chunk.
    """
    return data[:-CRC_BYTES] if encoding is Encoding.ZARR_CHUNK else data


def build_catalog_row(
    sample: Sample,
    *,
    path: str,
    offset: int,
    length: int,
    crc32c: int,
    encoding: Encoding,
    position: int | None,
    split: str,
    preprocessing_digest: str,
) -> dict[str, object]:
    """Build the catalog row of a stored sample, as plain JSON values.

    Args:
        sample: as it was stored.
        path: of the object that holds it, inside the dataset.
        offset: first byte of the sample in the object.
        length: number of its bytes.
        crc32c: of those bytes, see :func:`drop_checksum`.
        encoding: of those bytes.
        position: index n in the bank; None in a shard.
        split: ``train`` or ``test``.
        preprocessing_digest: the manifest's.

    Returns:
        A value for every column of ``CATALOG_SCHEMA``. Without a patient, the first 16 digits of the source's sha256 stand for
        one.
    """
    scaling, extra = sample.scaling, sample.extra
    return {
        "key": sample.key,
        "presentation": str(sample.presentation),
        "object": path,
        "offset": offset,
        "length": length,
        "crc32c": crc32c,
        "encoding": str(encoding),
        "position": position,
        "shape": list(sample.array.shape),
        "dtype": sample.array.dtype.str,
        "slope": scaling.slope,
        "intercept": scaling.intercept,
        "unit_low": scaling.low,
        "unit_high": scaling.high,
        "image_height": extra.get("image_height"),
        "image_width": extra.get("image_width"),
        "spacing_mm": None if sample.spacing_mm is None else list(sample.spacing_mm),
        "affine": None if sample.affine is None else [x for row in sample.affine for x in row],
        "origin_zyx": None if sample.origin_zyx is None else list(sample.origin_zyx),
        "volume_shape": extra.get("volume_shape"),
        "modality": str(sample.modality),
        "patient": patient_or_content(sample.patient, sample.origin.sha256),
        "split": split,
        "label": sample.label,
        "foreground": sample.foreground,
        "source_uri": sample.origin.uri,
        "source_sha256": sample.origin.sha256,
        "part": sample.origin.part,
        "note": extra.get("note"),
        "burned_in_annotation": extra.get("burned_in_annotation"),
        "preprocessing_digest": preprocessing_digest,
    }


def build_table(rows: Sequence[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Build an Arrow table of exactly this schema.

    Args:
        rows: one dictionary per row, with the names of the columns; a missing name is a null.
        schema: of the table.

    Returns:
        The table, (len(rows), len(schema)).
    """
    return pa.Table.from_pylist(list(rows), schema=schema)


def conform(table: pa.Table, schema: pa.Schema, subject: str, *, version: int = FORMAT_VERSION) -> pa.Table:
    """Check that a table has the columns of a schema, and add those that a table of an older version lacks, as nulls.

    Args:
        table: as read.
        schema: of the version that is written.
        subject: where the table came from, for the error.
        version: of the dataset.

    Returns:
        The same rows with the columns in the schema's order.

    Raises:
        DocumentError: naming every column that is missing, unknown, repeated, of another type or null where it may not be, and
            every word that is not in its column's list.
    """
    found = {field.name: field.type for field in table.schema}
    later = [field for field in schema if version == 1 and field.name in ADDED_IN_VERSION_2]
    wanted = {field.name: field.type for field in schema if field not in later}
    problems = [Problem(loc=name, message="column is missing") for name in wanted if name not in found]
    problems += [Problem(loc=name, message="column is not in the schema") for name in found if name not in wanted]
    problems += [Problem(loc=name, message="column stands twice") for name in found if table.schema.names.count(name) > 1]
    problems += [
        Problem(loc=name, message=f"is {found[name]}, expected {kind}")
        for name, kind in wanted.items()
        if name in found and found[name] != kind
    ]
    problems += [
        Problem(loc=field.name, message="holds nulls")
        for field in schema
        if not field.nullable and any(table.column(i).null_count for i in table.schema.get_all_field_indices(field.name))
    ]
    problems = problems or _find_unknown_words(table, schema)
    if problems:
        raise DocumentError(f"{subject} is not a crossdim table", problems)
    for field in later:
        table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names)


def _find_unknown_words(table: pa.Table, schema: pa.Schema) -> list[Problem]:
    """Words that this version does not know, such as an encoding of a later one."""
    problems = []
    for name in WORDS.keys() & set(schema.names):
        strange = sorted(set(pa.compute.unique(table[name]).to_pylist()) - set(map(str, WORDS[name])))
        if strange:
            problems.append(Problem(loc=name, message=f"holds {strange}; known are {sorted(map(str, WORDS[name]))}"))
    return problems
