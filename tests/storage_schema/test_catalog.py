"""Catalog and quarantine: rows survive Parquet, and a table that is none of ours is told all that is wrong with it."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossdim.storage_schema.catalog import CATALOG_SCHEMA, QUARANTINE_SCHEMA, build_catalog_row, build_table, conform
from crossdim.storage_schema.errors import DocumentError
from crossdim.storage_schema.vocabulary import Encoding, Presentation
from tests.strategies import sample

SUPERPATCH = sample(
    np.zeros((1, 4, 4, 4), np.int16),
    Presentation.SUPERPATCH,
    spacing_mm=(2.0, 1.0, 1.0),
    affine=((0.0, 0.0, 1.0, -10.0), (0.0, 1.0, 0.0, 5.5), (2.0, 0.0, 0.0, 0.25), (0.0, 0.0, 0.0, 1.0)),
    origin_zyx=(4, 0, 8),
    patient="f" * 16,
    foreground=0.25,
    extra={"volume_shape": [12, 8, 9], "note": "first of 30 frames"},
)
PSEUDO3D = sample(
    np.zeros((1, 16, 2, 3), np.uint8), Presentation.PSEUDO3D, label="disc", extra={"image_height": 8, "image_width": 12}
)


def row(of, **changes) -> dict[str, object]:
    values = {
        "path": "images/x-000000.tar",
        "offset": 512,
        "length": 2**40,
        "crc32c": 2**32 - 1,
        "encoding": Encoding.NPY,
        "position": None,
        "split": "train",
        "preprocessing_digest": "cd" * 32,
    }
    return build_catalog_row(of, **(values | changes))


def parquet(table: pa.Table) -> pa.Table:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return pq.read_table(io.BytesIO(buffer.getvalue()))


def test_rows_come_back_from_parquet_as_they_went_in():
    """Offsets beyond 4 GB, unsigned checksums and absent fields are where a column of the wrong type loses something."""
    rows = [row(SUPERPATCH, position=7, encoding=Encoding.ZARR_CHUNK), row(PSEUDO3D)]
    again = conform(parquet(build_table(rows, CATALOG_SCHEMA)), CATALOG_SCHEMA, "catalog").to_pylist()

    assert again == rows
    assert again[0]["affine"][3] == -10.0
    assert again[1]["image_width"] == 12
    assert again[1]["spacing_mm"] is None


def test_a_row_holds_exactly_the_columns_of_the_schema():
    """from_pylist drops what the schema does not name, without a word."""
    assert list(row(SUPERPATCH)) == CATALOG_SCHEMA.names


def test_a_sample_without_patient_is_its_own_patient():
    """Splits are drawn by patient; an empty name would put all unknown patients into one group."""
    assert row(PSEUDO3D)["patient"] == PSEUDO3D.origin.sha256[:16]
    assert row(SUPERPATCH)["patient"] == "f" * 16


def test_columns_come_in_the_order_of_the_schema():
    """Readers may then take columns by position; another writer's order does not matter."""
    table = build_table([row(PSEUDO3D)], CATALOG_SCHEMA)

    assert conform(table.select(CATALOG_SCHEMA.names[::-1]), CATALOG_SCHEMA, "catalog").schema.names == CATALOG_SCHEMA.names


def test_all_problems_of_a_table_are_named_at_once():
    """Whoever exports a catalog from elsewhere must not find the faults one run at a time."""
    table = build_table([{"uri": "a", "stage": "decode", "rule": "truncated", "reason": "cut"}], QUARANTINE_SCHEMA)
    table = table.drop_columns(["uri"]).append_column("colour", pa.array(["red"])).append_column("uri", pa.array([1]))
    table = table.drop_columns(["stage"]).set_column(0, "rule", pa.array([None], pa.string()))
    with pytest.raises(DocumentError) as caught:
        conform(table, QUARANTINE_SCHEMA, "part-0")

    assert {p.loc: p.message for p in caught.value.problems} == {
        "stage": "column is missing",
        "colour": "column is not in the schema",
        "uri": "is int64, expected string",
        "rule": "holds nulls",
    }


def test_a_column_that_stands_twice_is_a_problem_and_no_crash():
    """Arrow allows it, and then neither of the two can be asked for by name."""
    table = build_table([{"uri": "a", "stage": "decode", "rule": "cut", "reason": "cut"}], QUARANTINE_SCHEMA)
    with pytest.raises(DocumentError, match="uri: column stands twice"):
        conform(table.append_column("uri", pa.array(["b"])), QUARANTINE_SCHEMA, "part-0")


def test_words_of_a_later_version_are_named_and_not_guessed_at():
    """A reader that meets an unknown encoding must say so when it opens the dataset, not in the middle of a run."""
    row = {field.name: None for field in CATALOG_SCHEMA}
    for field in CATALOG_SCHEMA:
        if not field.nullable:
            row[field.name] = [1] if pa.types.is_list(field.type) else "x" if pa.types.is_string(field.type) else 1
    with pytest.raises(DocumentError) as caught:
        conform(build_table([row], CATALOG_SCHEMA), CATALOG_SCHEMA, "catalog")
    assert {problem.loc for problem in caught.value.problems} == {"presentation", "encoding", "modality", "split"}


def test_tables_of_version_1_are_read_with_the_added_columns_as_nulls():
    """Datasets outlive releases; a table that calls itself version 1 and has columns of version 2 is nobody's."""
    table = build_table([row(PSEUDO3D)], CATALOG_SCHEMA)
    old = table.drop_columns(["burned_in_annotation"])

    assert conform(old, CATALOG_SCHEMA, "catalog", version=1).to_pylist() == table.to_pylist()
    with pytest.raises(DocumentError, match="burned_in_annotation: column is missing"):
        conform(old, CATALOG_SCHEMA, "catalog")
    with pytest.raises(DocumentError, match="burned_in_annotation: column is not in the schema"):
        conform(table, CATALOG_SCHEMA, "catalog", version=1)
