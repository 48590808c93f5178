"""The contract: a catalog that breaks it is told all that is wrong, before any of its values is used."""

from __future__ import annotations

import hashlib
import io
import math
import time
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.catalog import CATALOG_SCHEMA, QUARANTINE_SCHEMA, build_catalog_row, build_table
from crossdim.storage_schema.contract import RULES, check_catalog, join_catalog, parse_published_table
from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.storage_schema.manifest import FileCounts, Manifest, ObjectEntry
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.shards import encode_npy
from crossdim.storage_schema.vocabulary import Encoding, Presentation
from tests.strategies import sample

SHARD, BANK = "images/a.tar", "superpatches/a.zarr/c/0/0/0"


def manifest(presentation: Presentation, num_samples: int = 3) -> Manifest:
    flat = presentation is not Presentation.SUPERPATCH
    path, role = (SHARD, "shard") if flat else (BANK, "bank")
    return Manifest(
        name="a",
        presentation=presentation,
        num_samples=num_samples,
        num_quarantined=0,
        preprocessing={},
        plan_digest="0" * 64,
        objects=(
            ObjectEntry(path=path, size=100_000, sha256="1" * 64, role=role),
            ObjectEntry(path="catalog/a.parquet", size=2**70, sha256="1" * 64, role="catalog"),
        ),
        files=FileCounts(total=3, used=3, quarantined=0, ignored=0),
    )


ARRAYS = {
    Presentation.IMAGE: np.zeros((1, 8, 12), np.uint16),
    Presentation.PSEUDO3D: np.zeros((1, 16, 2, 3), np.uint8),
    Presentation.SUPERPATCH: np.zeros((1, 4, 4, 4), np.int16),
}


def rows(presentation: Presentation) -> list[dict[str, object]]:
    """Three sound rows."""
    flat = presentation is not Presentation.SUPERPATCH
    array = ARRAYS[presentation]
    found = sample(array, presentation, extra={} if flat else {"volume_shape": [8, 8, 8]}, origin_zyx=None if flat else (4, 0, 0))
    return [
        build_catalog_row(
            replace(found, key=sample_key("ab" * 32, str(number))),
            path=SHARD if flat else BANK,
            offset=1000 * number,
            length=len(encode_npy(array)) if flat else 60,
            crc32c=7,
            encoding=Encoding.NPY if flat else Encoding.ZARR_CHUNK,
            position=None if flat else number,
            split="train",
            preprocessing_digest=manifest(presentation).preprocessing_digest,
        )
        for number in range(3)
    ]


def checked(of: Presentation, *, row: int = 1, **changes: object) -> list[str]:
    """The columns that are told of, where one row is changed."""
    changed = rows(of)
    changed[row] |= changes
    found = check_catalog(build_table(changed, CATALOG_SCHEMA), manifest(of))
    assert found.sound.tolist() == [not (changes and number == row) for number in range(3)]
    for problem in found.problems:
        assert "1 of 3 rows break the contract; row 1, sample '" in problem.message
        assert "; expected " in problem.message
    return [problem.loc.removeprefix("catalog, column ") for problem in found.problems]


@pytest.mark.parametrize("presentation", Presentation)
def test_sound_rows_keep_the_contract(presentation):
    assert check_catalog(build_table(rows(presentation), CATALOG_SCHEMA), manifest(presentation)).problems == ()
    assert join_catalog([build_table(rows(presentation), CATALOG_SCHEMA)], manifest(presentation), "catalog").num_rows == 3


IMAGE, VOLUME = Presentation.PSEUDO3D, Presentation.SUPERPATCH


@pytest.mark.parametrize(
    ("presentation", "column", "value"),
    [
        (IMAGE, "key", "ab" * 15 + "A0"),
        (IMAGE, "key", "ab" * 16 + "\n"),
        (IMAGE, "key", "../../../../../../etc/passwd"),
        (IMAGE, "key", sample_key("ab" * 32, "0")),
        (IMAGE, "presentation", "image"),
        (IMAGE, "object", "../other/images/a.tar"),
        (IMAGE, "object", "/etc/passwd"),
        (IMAGE, "object", "catalog/a.parquet"),
        (IMAGE, "object", SHARD + "/"),
        (IMAGE, "encoding", "zarr-chunk"),
        (VOLUME, "encoding", "npy"),
        (IMAGE, "position", 3),
        (VOLUME, "position", None),
        (VOLUME, "position", -1),
        (VOLUME, "position", 0),
        (IMAGE, "offset", -1),
        (IMAGE, "offset", 100_000),
        (IMAGE, "offset", 2**63 - 1),
        (IMAGE, "shape", [1, 16, 6]),
        (IMAGE, "shape", [1, 16, 2, 3, 1]),
        (IMAGE, "shape", [1, 16, 2, 0]),
        (IMAGE, "shape", [1, 16, -2, -3]),
        (IMAGE, "shape", [1, 16, 2, None]),
        (IMAGE, "shape", []),
        (VOLUME, "shape", [2, 4, 4, 2]),
        (VOLUME, "shape", [1, 4, 4, 2]),
        (IMAGE, "dtype", "|O"),
        (IMAGE, "dtype", "|V96"),
        (IMAGE, "dtype", ">u2"),
        (IMAGE, "dtype", "no dtype"),
        (VOLUME, "dtype", "<f4"),
        (IMAGE, "slope", 0.0),
        (IMAGE, "slope", float("nan")),
        (IMAGE, "intercept", float("inf")),
        (IMAGE, "unit_high", -1000.0),
        (IMAGE, "unit_high", float("inf")),
        (VOLUME, "spacing_mm", [1.0, 1.0]),
        (VOLUME, "spacing_mm", [1.0, 0.0, 1.0]),
        (VOLUME, "spacing_mm", [1.0, float("nan"), 1.0]),
        (VOLUME, "spacing_mm", [1.0, None, 1.0]),
        (VOLUME, "affine", [1.0] * 15),
        (VOLUME, "affine", [1.0] * 15 + [float("-inf")]),
        (VOLUME, "origin_zyx", [-4, 0, 0]),
        (VOLUME, "origin_zyx", [8, 0, 0]),
        (VOLUME, "origin_zyx", None),
        (VOLUME, "image_height", 0),
        (IMAGE, "image_width", -12),
        (VOLUME, "foreground", 1.5),
        (VOLUME, "foreground", float("nan")),
        (IMAGE, "patient", ""),
        (IMAGE, "source_sha256", "ab"),
        (IMAGE, "part", ""),
        (IMAGE, "preprocessing_digest", "0" * 64),
    ],
)
def test_a_value_that_breaks_the_contract_is_told_of(presentation, column, value):
    """Of the row and column that hold it, and the other rows stay sound."""
    told = checked(presentation, **{column: value})
    assert told in ([column], ["length"] if column == "offset" else [column, "length"])


@pytest.mark.parametrize(
    ("view", "height", "width", "sound"),
    [
        (Pseudo3D(), 8, 12, True),
        (Pseudo3D(), 12, 8, False),
        (Pseudo3D(), 9, 12, False),
        (Pseudo3D(), 3, 12, False),
        (Pseudo3D(), 2**31 - 1, 2**31 - 1, False),
        (Pseudo3D(allow_crop=True), 9, 12, True),
        (Pseudo3D(stride=2, padding=1), 4, 6, True),
        (Pseudo3D(stride=2, padding=1), 8, 12, False),
        (Pseudo3D(window=2, stride=2, layout="window"), 8, 8, True),
        (Pseudo3D(window=2, stride=2, layout="window"), 8, 12, False),
        (Pseudo3D(), 8, None, True),
    ],
)
def test_the_size_of_an_image_is_that_of_its_view(view, height, width, sound):
    """Only a size that unrolls to the stored shape; as long as a dataset does not state the view, any."""
    made = replace(manifest(IMAGE), preprocessing={"pseudo3d": asdict(view)})
    changed = [row | {"image_height": height, "image_width": width} for row in rows(IMAGE)]
    stated = [row | {"preprocessing_digest": made.preprocessing_digest} for row in changed]
    found = check_catalog(build_table(stated, CATALOG_SCHEMA), made)
    assert [problem.loc for problem in found.problems] == ([] if sound else ["catalog, column image_height"])
    assert check_catalog(build_table(changed, CATALOG_SCHEMA), manifest(IMAGE)).problems == ()


def test_two_more_that_are_told_of_through_another_column():
    """Every value alone is a sound one."""
    assert checked(IMAGE, unit_low=1000.0) == ["unit_high"]
    assert checked(VOLUME, volume_shape=[4, 8, 8]) == ["origin_zyx"]
    assert checked(VOLUME, volume_shape=None, origin_zyx=[2**30, 2**30, 8]) == ["origin_zyx"]
    assert checked(VOLUME, volume_shape=[2**30, 2**30, 8]) == ["volume_shape"]
    assert checked(IMAGE, shape=[1, 16, 9, 9]) == checked(IMAGE, dtype="<f8") == ["length"]


@pytest.mark.parametrize("length", [0, -1, 2**63 - 1, 99_001, 20, 96, 96 + 1025])
def test_a_range_that_is_not_that_of_the_array_is_told_of(length):
    """96 bytes of numbers behind a header of at most 1024."""
    assert set(checked(IMAGE, length=length)) == {"length"}


@pytest.mark.parametrize(("length", "kept"), [(19, False), (20, True), (128 + 20, True), (128 + 21, False)])
def test_a_chunk_has_at_least_its_headers_and_at_most_what_cannot_be_compressed(length, kept):
    assert checked(VOLUME, **({"length": length} if not kept else {})) == ([] if kept else ["length"])
    changed = rows(VOLUME)
    changed[1]["length"] = length
    assert check_catalog(build_table(changed, CATALOG_SCHEMA), manifest(VOLUME)).sound[1] == kept


def test_memory_is_bounded_before_it_is_taken():
    """A product that overflows 64 bits, and one that is just too large."""
    assert checked(VOLUME, shape=[1, 2**31 - 1, 2**31 - 1, 2**31 - 1]) == ["shape", "origin_zyx"]
    assert checked(VOLUME, shape=[1, 1025, 1025, 1025]) == ["shape"]


def test_all_problems_are_told_at_once_with_counts_and_an_example():
    changed = rows(IMAGE)
    changed[0]["slope"] = changed[2]["slope"] = 0.0
    changed[1]["object"] = "../x"
    with pytest.raises(DocumentError) as caught:
        join_catalog([build_table(changed, CATALOG_SCHEMA)], manifest(IMAGE, num_samples=4), "s3://lab/xr/catalog")
    told = str(caught.value)
    assert told.startswith("s3://lab/xr/catalog does not keep the contract")
    assert "column object: 1 of 3 rows break the contract; row 1" in told
    assert "holds '../x'" in told
    assert "column slope: 2 of 3 rows break the contract; row 0" in told
    assert "num_samples: the manifest says 4, the catalog holds 3" in told


def test_every_rule_is_broken_by_some_test():
    """A rule that nothing breaks checks nothing: each column of the table above is one of a rule, and the other way round."""
    (mark,) = test_a_value_that_breaks_the_contract_is_told_of.pytestmark
    tried = {column for _, column, _ in mark.args[1]} | {"length", "volume_shape", "unit_low"}
    assert {column for column, _, _ in RULES} == tried


def values_of(field: pa.Field) -> st.SearchStrategy[object]:
    """Any value that a column can hold."""
    kinds = {
        pa.string(): st.text(max_size=40),
        pa.int64(): st.integers(-(2**63), 2**63 - 1),
        pa.int32(): st.integers(-(2**31), 2**31 - 1),
        pa.uint32(): st.integers(0, 2**32 - 1),
        pa.float64(): st.floats(),
        pa.bool_(): st.booleans(),
    }
    of_list = st.lists(st.none() | kinds.get(getattr(field.type, "value_type", None), st.none()), max_size=17)
    found = kinds.get(field.type, of_list)
    return st.none() | found if field.nullable else found


@given(st.sampled_from(list(Presentation)), st.data())
@pytest.mark.integration
def test_any_values_in_any_columns_are_checked_without_an_error(presentation, data):
    """A catalog comes from a stranger; what is found sound can be read without taking more memory than is allowed."""
    changed = rows(presentation)
    for row in changed:
        names = data.draw(st.lists(st.sampled_from(CATALOG_SCHEMA.names), max_size=4, unique=True))
        row |= {name: data.draw(values_of(CATALOG_SCHEMA.field(name))) for name in names}
    found = check_catalog(build_table(changed, CATALOG_SCHEMA), manifest(presentation))
    assert (found.problems == ()) == found.sound.all()
    for row, sound in zip(changed, found.sound, strict=True):
        if sound:
            assert 0 <= row["offset"] < row["offset"] + row["length"] <= 100_000
            assert np.dtype(row["dtype"]).itemsize * math.prod(row["shape"]) < 2**31
            assert row["object"] in (SHARD, BANK)
            assert row["unit_low"] < row["unit_high"]


def test_an_empty_catalog_keeps_the_contract():
    assert check_catalog(CATALOG_SCHEMA.empty_table(), manifest(IMAGE, num_samples=0)).problems == ()


@pytest.mark.integration
def test_a_million_rows_take_seconds():
    """Measured at 2 s, most of it the distinct keys; opening a dataset must not become the longest part of a short run."""
    count = 10**6
    base = build_table(rows(IMAGE)[:1], CATALOG_SCHEMA)
    table = base.take(pa.array(np.zeros(count, np.int64)))
    keys = pa.array([f"{number:032x}" for number in range(count)])
    table = table.set_column(table.schema.get_field_index("key"), CATALOG_SCHEMA.field("key"), keys)
    began = time.perf_counter()
    assert check_catalog(table, manifest(IMAGE, num_samples=count)).problems == ()
    assert time.perf_counter() - began < 20


def parquet(table: pa.Table, **how: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **how)
    return buffer.getvalue()


def entry(data: bytes) -> ObjectEntry:
    return ObjectEntry(path="catalog/a.parquet", size=len(data), sha256=hashlib.sha256(data).hexdigest(), role="catalog")


def opened(data: bytes, of: ObjectEntry, schema: pa.Schema = CATALOG_SCHEMA) -> pa.Table:
    return parse_published_table(data, of, schema, "catalog", version=2)


def test_no_bit_of_a_table_changes_unseen():
    """Without the hash 38 % of single flipped bits in a Parquet file changed values and nothing was said."""
    data = parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))
    assert opened(data, entry(data)).to_pylist() == rows(IMAGE)
    for bit in range(0, 8 * len(data), 101):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StorageError, match=r"its sha256 is .*restore the object"):
            opened(bytes(changed), entry(data))


@pytest.mark.parametrize("harmed", [b"", b"PAR1", b"\0"])
def test_a_table_of_another_size_is_not_hashed(harmed):
    with pytest.raises(StorageError, match="bytes; the manifest says"):
        opened(harmed, entry(parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))))


@pytest.mark.parametrize("data", [b"", b"PAR1" * 4, b"\0" * 100])
def test_a_published_object_that_is_no_table_is_refused_in_words(data):
    with pytest.raises(DocumentError, match="is no Parquet file"):
        opened(data, entry(data))


def test_texts_that_are_no_utf_8_are_refused():
    """Arrow takes them, and fails when they become Python values."""
    changed = build_table(rows(IMAGE), CATALOG_SCHEMA)
    harmed = pa.array([b"\xff\xfe"] * 3, pa.binary()).view(pa.string())
    changed = changed.set_column(changed.schema.get_field_index("patient"), CATALOG_SCHEMA.field("patient"), harmed)
    data = parquet(changed)
    with pytest.raises(DocumentError, match="UTF"):
        opened(data, entry(data))


def test_a_table_that_would_fill_the_memory_is_not_opened(monkeypatch):
    """The file says how much it unpacks to."""
    data = parquet(build_table([], QUARANTINE_SCHEMA))
    assert opened(data, entry(data), QUARANTINE_SCHEMA).num_rows == 0
    data = parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))
    monkeypatch.setattr("crossdim.storage_schema.contract.MAX_TABLE_BYTES", 1000)
    with pytest.raises(DocumentError, match="at most 1,000"):
        opened(data, entry(data))
