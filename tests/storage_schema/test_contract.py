"""The contract: a catalog that breaks it is told all that is wrong, before any of its values is used."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.catalog import CATALOG_SCHEMA, build_table
from crossdim.storage_schema.contract import RULES, check_catalog, join_catalog
from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.errors import DocumentError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.vocabulary import Presentation
from tests.storage_schema.catalog_rows import BANK, SHARD, manifest, rows


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
