"""Verify, object by object: what is cut, empty, garbage or hostile is a problem with a name, and never an error."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.flip_datasets import publish
from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.check import run_check
from crossdim.pipelines.jobs.verify import check_tables
from crossdim.storage_schema.errors import DocumentError
from crossdim.storage_schema.manifest import MANIFEST_PATH, parse_manifest
from tests.training.published import images, superpatches

TAR, SHARD, DOCUMENT = "images/a-000000.tar", "superpatches/a-2mm.zarr/c/0/0/0/0", "superpatches/a-2mm.zarr/zarr.json"
TABLES = ("catalog/part-00000.parquet", "quarantine/part-00000.parquet", "ignored/part-00000.parquet")


@pytest.fixture
def flat(tmp_path: Path) -> Bucket:
    bucket = Bucket(str(tmp_path / "flat"))
    publish(bucket, images(3))
    return bucket


@pytest.fixture
def solid(tmp_path: Path) -> Bucket:
    bucket = Bucket(str(tmp_path / "solid"))
    publish(bucket, superpatches(3, side=16))
    return bucket


def problems(bucket: Bucket) -> dict[str, str]:
    """Everything that verify tells, as its tasks would without Ray."""
    tables = check_tables(bucket)
    told = [(problem.loc, problem.message) for problem in tables.problems]
    told += [(found["loc"], found["message"]) for task in tables.tasks for found in json.loads(run_check(task, bucket))]
    return dict(told)


def sealed(bucket: Bucket, path: str, data: bytes) -> None:
    """Replace an object as a hostile publisher would: with a manifest that says so."""
    bucket.put(path, data)
    manifest = parse_manifest(bucket.read(MANIFEST_PATH), "manifest")
    stated = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    entries = tuple(replace(entry, **stated) if entry.path == path else entry for entry in manifest.objects)
    bucket.put(MANIFEST_PATH, replace(manifest, objects=entries).to_bytes())


def test_whole_datasets_have_no_problems(flat, solid):
    assert problems(flat) == problems(solid) == {}


@pytest.mark.parametrize("damage", [b"", b"\0", b"\0" * 50_000, b"PAR1", b"{}", b"\xff" * 9, None])
@pytest.mark.parametrize("path", [TAR, SHARD, DOCUMENT, *TABLES])
def test_an_object_that_is_another_or_gone_is_named(path, damage, flat, solid):
    bucket = flat if path == TAR else solid
    if damage is None:
        bucket.delete(path)
    else:
        bucket.put(path, damage)
    told = problems(bucket)
    assert path in told
    assert ("does not exist" if damage is None else "sha256") in told[path]


@pytest.mark.parametrize("path", [TAR, SHARD, DOCUMENT, *TABLES])
def test_an_object_that_is_cut_anywhere_is_named(path, flat, solid):
    bucket = flat if path == TAR else solid
    whole = bucket.read(path)
    for length in np.linspace(0, len(whole) - 1, 9).astype(int):
        bucket.put(path, whole[:length])
        assert path in problems(bucket)


HUGE_NPY = io.BytesIO()
np.lib.format.write_array_header_1_0(HUGE_NPY, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})


def tar_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"\0" * 2048,
            b"x" * 2048,
            tar_of({"a.npy": b""}),
            tar_of({"a.npy": HUGE_NPY.getvalue()}),
            tar_of({"nosuffix": b"1"}),
        ),
        tar_of({"a.npy": b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"}),
    ],
)
def test_a_published_tar_that_no_reader_opens_is_a_problem(data, flat):
    """Its hash is right, so the bytes are shown to the library that others use."""
    sealed(flat, TAR, data)
    assert any(TAR in loc or "column" in loc for loc in problems(flat))


def changed(document: bytes, **fields: object) -> bytes:
    return json.dumps(json.loads(document) | fields).encode()


@pytest.mark.parametrize(
    "fields",
    [
        *(
            {"shape": [2**40] * 4},
            {"shape": "x"},
            {"shape": []},
            {"codecs": []},
            {"codecs": [{"name": "pickle"}]},
            {"zarr_format": 2},
        ),
        *({"data_type": "string"}, {"data_type": "float64"}, {"fill_value": "x"}, {"chunk_grid": {}}, {"node_type": "group"}),
    ],
)
def test_a_published_bank_that_zarr_reads_otherwise_is_a_problem(fields, solid):
    sealed(solid, DOCUMENT, changed(solid.read(DOCUMENT), **fields))
    assert any(SHARD in loc for loc in problems(solid)) or "shape" in fields  # a longer array has the same values


@pytest.mark.parametrize("data", [b"", b"[]", b"\0", b"{", b"[" * 99_999])
def test_a_published_bank_whose_document_is_none_is_a_problem(data, solid):
    sealed(solid, DOCUMENT, data)
    assert any("its standard library cannot open it" in message for message in problems(solid).values())


def test_a_bank_without_its_document_is_a_problem(solid):
    manifest = parse_manifest(solid.read(MANIFEST_PATH), "manifest")
    entries = tuple(entry for entry in manifest.objects if entry.path != DOCUMENT)
    solid.put(MANIFEST_PATH, replace(manifest, objects=entries).to_bytes())
    assert problems(solid) == {SHARD: "lies in no bank that has a zarr.json in the manifest"}


def test_counts_that_do_not_add_up_are_named(flat):
    manifest = parse_manifest(flat.read(MANIFEST_PATH), "manifest")
    files = replace(manifest.files, used=manifest.files.used - 3, quarantined=2, ignored=3)
    flat.put(MANIFEST_PATH, replace(manifest, num_samples=4, num_quarantined=2, files=files).to_bytes())
    assert problems(flat).keys() == {"num_samples", "num_quarantined", "num_files_quarantined", "num_files_ignored"}


def test_a_row_that_breaks_the_contract_is_told_of_and_not_followed(flat):
    """Its range would be read far out of the object, and its dtype does not exist."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(flat.read(TABLES[0])))
    for name, value in (("length", 2**62), ("dtype", "no dtype")):
        column = [value, *table[name].to_pylist()[1:]]
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(column, table[name].type))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    sealed(flat, TABLES[0], buffer.getvalue())
    assert problems(flat).keys() == {"catalog, column length", "catalog, column dtype"}


@pytest.mark.parametrize("data", [b"", b"\0", b"[]", b"{}"])
def test_a_manifest_that_is_none_is_refused(data, flat):
    flat.put(MANIFEST_PATH, data)
    with pytest.raises(DocumentError):
        check_tables(flat)
