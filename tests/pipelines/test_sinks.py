"""Objects must be what the libraries of their formats read, and the same bytes every time."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest
import webdataset
import zarr

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.duplicates import Duplicate, settle_duplicates
from crossdim.pipelines.jobs.check import read_with_webdataset, read_with_zarr
from crossdim.pipelines.jobs.rows import decode_row
from crossdim.pipelines.markers import FileRead, Marker, Used, parse_marker
from crossdim.pipelines.publish import ManifestHeader, encode_parquet, publish
from crossdim.pipelines.quarantine import Quarantined
from crossdim.pipelines.sinks.bank import build_bank_document, pack_bank_shard
from crossdim.pipelines.sinks.shards import pack_shard
from crossdim.storage_schema.bank import BankLayout
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, build_table, conform
from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.errors import GeometryError, StorageError
from crossdim.storage_schema.sample import Origin, Sample, Scaling
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Modality, Presentation, Split

LAYOUT = BankLayout(side=8, patches_per_shard=4)
DIGEST = "d" * 64


def views(count: int) -> list[Sample]:
    rng = np.random.default_rng(1)
    return [
        Sample(
            key=sample_key(f"{n:064x}", "whole"),
            presentation=Presentation.PSEUDO3D,
            array=rng.integers(0, 255, (1, 16, 3 + n, 5)).astype(np.uint8),
            modality=Modality.XR,
            scaling=Scaling(low=0, high=255),
            origin=Origin(uri=f"p{n}.png", sha256=f"{n:064x}"),
            label="well",
            patient=f"patient{n}",
        )
        for n in range(count)
    ]


def boxes(count: int) -> list[Sample]:
    rng = np.random.default_rng(2)
    return [
        replace(
            view,
            presentation=Presentation.SUPERPATCH,
            array=rng.integers(0, 2000, (1, 8, 8, 8)).astype(np.int16),
            spacing_mm=(1.0,) * 3,
        )
        for view in views(count)
    ]


def shard(samples):
    return pack_shard(samples, "images/a-000000.tar", split=SplitRule(test_fraction=0.5), preprocessing_digest=DIGEST)


def bank_shard(samples, number=0):
    return pack_bank_shard(samples, number, "superpatches/a-1mm.zarr", LAYOUT, split=SplitRule(), preprocessing_digest=DIGEST)


def test_shards_do_not_depend_on_the_order_in_which_samples_come():
    samples = views(5)

    assert shard(samples).data == shard(samples[::-1]).data


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file to the collector
def test_webdataset_reads_what_the_catalog_points_at(tmp_path):
    """The library on a real file, our decoder on a byte range, and the array that went in are one."""
    samples = {sample.key: sample for sample in views(5)}
    packed = shard(list(samples.values()))
    (tmp_path / "a.tar").write_bytes(packed.data)
    read = {one["__key__"]: one for one in webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)}

    assert read.keys() == samples.keys()
    for row in packed.rows:
        part = packed.data[row["offset"] : row["offset"] + row["length"]]
        assert google_crc32c.value(part) == row["crc32c"]
        assert np.array_equal(decode_row(part, row), samples[row["key"]].array)
        assert np.array_equal(np.load(io.BytesIO(read[row["key"]]["npy"])), samples[row["key"]].array)
        assert np.array_equal(read_with_webdataset(packed.data)[row["key"]], samples[row["key"]].array)


def test_tar_members_tell_nothing_of_machine_or_time():
    with tarfile.open(fileobj=io.BytesIO(shard(views(2)).data)) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_zarr_opens_the_bank_from_files_and_sees_our_bits(tmp_path):
    """Two shards of a bank of three; what was never written reads as air."""
    samples = boxes(5)
    packed = [bank_shard({0: samples[0], 3: samples[1]}), bank_shard(dict(enumerate(samples[2:])), number=2)]
    (tmp_path / "zarr.json").write_bytes(build_bank_document(LAYOUT, 3))
    for one in packed:
        path = tmp_path / one.path.removeprefix("superpatches/a-1mm.zarr/")
        path.parent.mkdir(parents=True)
        path.write_bytes(one.data)
    array = zarr.open_array(tmp_path, mode="r")
    by_key = {sample.key: sample for sample in samples}

    assert array.shape == (12, 8, 8, 8)
    assert [row["position"] for one in packed for row in one.rows] == [0, 3, 8, 9, 10]
    assert not array[4:8].any()
    for one in packed:
        for row in one.rows:
            expected = by_key[row["key"]].array
            ours = decode_row(one.data[row["offset"] : row["offset"] + row["length"]], row)
            assert np.array_equal(ours, expected)
            assert np.array_equal(array[row["position"]], expected[0])
            assert np.array_equal(read_with_zarr(build_bank_document(LAYOUT, 3), one.path, one.data, [row])[row["key"]], expected)


def test_a_bank_shard_is_the_same_bytes_every_time():
    samples = dict(enumerate(boxes(4)))

    assert bank_shard(samples).data == bank_shard(samples).data


def test_a_box_of_air_cannot_be_packed():
    """Zarr would store nothing for it, and its catalog row would point nowhere."""
    air = replace(boxes(1)[0], array=np.zeros((1, 8, 8, 8), np.int16))
    with pytest.raises(GeometryError, match="all air"):
        bank_shard({0: air})


def test_catalog_rows_fit_the_schema_and_parquet_repeats_itself():
    rows = [*shard(views(3)).rows, *bank_shard(dict(enumerate(boxes(3)))).rows]
    table = build_table(rows, CATALOG_SCHEMA)

    conform(table, CATALOG_SCHEMA, "test")
    assert encode_parquet(table) == encode_parquet(table)


def test_a_patient_is_always_in_the_same_part():
    """Drawn by hash: about the share asked for, and stable when the share grows."""
    patients = [f"p{n}" for n in range(2000)]
    small, large = ({p for p in patients if SplitRule(test_fraction=f).draw(p) is Split.TEST} for f in (0.1, 0.2))

    assert small < large
    assert 150 < len(small) < 250
    assert SplitRule().draw("p") is Split.TRAIN


def test_markers_survive_their_own_bytes():
    marker = Marker(
        plan=DIGEST,
        row=3,
        used=(Used(uri="b", num_files=2),),
        files=(FileRead(source=0, path="b/1", size=3, version="7", sha256=DIGEST),),
        objects=(shard(views(2)).entry(),),
        catalog=shard(views(2)).rows,
        quarantine=(Quarantined(uri="a", stage="decode", rule="truncated", reason="é"),),
        repeats=(Duplicate(uri="b", sha256="0", label="ü"),),
    )

    assert parse_marker(marker.to_bytes()) == marker
    assert parse_marker(marker.to_bytes()).to_bytes() == marker.to_bytes()


def row_of(uri: str, sha256: str, label: str | None = None, part: int = 0, patient: str | None = None) -> dict:
    key = f"{sha256}{part}"
    return {"key": key, "source_uri": uri, "source_sha256": sha256, "label": label, "patient": patient or sha256[:16]}


def test_of_equal_content_the_first_is_kept_and_the_others_are_told():
    rows = [row_of("1", "a"), row_of("1", "a", part=1), row_of("2", "b"), row_of("3", "a"), row_of("3", "a", part=1)]
    kept, repeats = settle_duplicates(rows, [Duplicate(uri="4", sha256="b", label=None, num_files=7)])

    assert [row["source_uri"] for row in kept] == ["1", "1", "2"]
    assert [(one.uri, one.rule, one.num_files) for one in repeats] == [("3", "duplicate", 1), ("4", "duplicate", 7)]


def test_equal_content_with_labels_that_differ_is_kept_under_no_name():
    """Which label is right cannot be known; a missing label contradicts none."""
    rows = [row_of("1", "a", "sick"), row_of("2", "b", "well"), row_of("3", "a", "well"), row_of("5", "c")]
    kept, repeats = settle_duplicates(
        rows, [Duplicate(uri="4", sha256="b", label="sick"), Duplicate(uri="6", sha256="c", label="well")]
    )

    assert [row["source_uri"] for row in kept] == ["5"]
    assert {(one.uri, one.rule) for one in repeats} == {
        *((uri, "label_conflict") for uri in "1324"),
        ("6", "duplicate"),
    }
    reasons = {one.uri: one.reason for one in repeats}
    assert "'sick'" in reasons["1"]
    assert "3 ('well')" in reasons["1"]
    assert "'well'" in reasons["6"]


def test_of_equal_content_the_name_that_most_is_known_of_is_kept():
    rows = [row_of("1", "a"), row_of("2", "a", "sick"), row_of("3", "a", "sick", patient="p"), row_of("4", "a", patient="p")]
    kept, repeats = settle_duplicates(rows, [Duplicate(uri="5", sha256="a", label=None, patient="p")])

    assert [row["source_uri"] for row in kept] == ["3"]
    assert [(one.uri, one.rule) for one in repeats] == [(uri, "duplicate") for uri in "1245"]
    kept, (repeat,) = settle_duplicates([row_of("1", "a", patient="p"), row_of("2", "a", "sick")], [])
    assert [row["source_uri"] for row in kept] == ["2"]
    assert repeat.reason.endswith("which is kept, without this one's patient")


def test_equal_content_of_several_patients_is_kept_under_no_name():
    rows = [row_of("1", "a", "sick", patient="p"), row_of("2", "a", "sick"), row_of("3", "b", patient="p")]
    kept, repeats = settle_duplicates(rows, [Duplicate(uri="4", sha256="a", label="sick", patient="q")])

    assert [row["source_uri"] for row in kept] == ["3"]
    assert [(one.uri, one.rule) for one in repeats] == [(uri, "patient_conflict") for uri in "124"]
    assert "content as 2, 4," in repeats[0].reason


def test_a_dataset_without_samples_names_its_first_refusal_by_its_path(tmp_path):
    """Names are hashed in what is published; the sentence on the terminal is for who holds the files."""
    title = ManifestHeader(name="t", presentation=Presentation.SUPERPATCH, preprocessing={}, plan_digest=DIGEST, num_files=1)
    refused = Quarantined(uri="hashed:1", stage="decode", rule="rescale", reason="RescaleSlope is 0; at fault: hashed:2")
    paths = {"hashed:1": "the series in a", "hashed:2": "a/b.dcm"}
    with pytest.raises(StorageError, match=r"the first, the series in a, at decode: RescaleSlope is 0; at fault: a/b\.dcm"):
        publish(Bucket(str(tmp_path)), title, [], [refused], [], None, lambda text: _replaced(text, paths))


def _replaced(text: str, words: dict[str, str]) -> str:
    for word, other in words.items():
        text = text.replace(word, other)
    return text
