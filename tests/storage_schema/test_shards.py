"""WebDataset shards: other people's readers open them, extents are true, equal samples equal bytes, and no header is believed."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import pickle
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.sample import Array
from crossdim.storage_schema.shards import Member, build_members, decode_npy, encode_npy, pack_tar, parse_record, shard_path
from crossdim.storage_schema.vocabulary import Presentation
from tests.strategies import arrays_of, sample

SMALL = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)).flatmap(arrays_of)


def shard(arrays: list[Array]) -> tuple[list[Member], bytes, list]:
    samples = [sample(array, key=sample_key("ab" * 32, f"frame={i}"), label="disc") for i, array in enumerate(arrays)]
    members = [member for each in samples for member in build_members(each)]
    return members, *pack_tar(members)


@given(st.lists(SMALL, min_size=1, max_size=4))
def test_the_standard_library_reads_the_same_members(arrays):
    """A shard is a plain tar: no reader of ours is needed to get the data back."""
    members, data, _ = shard(arrays)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = [Member(name=info.name, data=tar.extractfile(info).read()) for info in tar]

    assert found == members
    for number, array in enumerate(arrays):
        assert np.array_equal(np.load(io.BytesIO(found[2 * number].data), allow_pickle=False), array)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves closing to the garbage collector
def test_webdataset_reads_the_same_arrays(tmp_path):
    """The library that the layout is named after groups array and record into one sample, decoded by its own rules."""
    arrays = [np.full((1, 4, 5), i, np.int16) for i in range(3)]
    _, data, _ = shard(arrays)
    (tmp_path / "a.tar").write_bytes(data)
    found = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False).decode())

    assert [each["__key__"] for each in found] == [each["json"]["key"] for each in found]
    assert all(np.array_equal(each["npy"], array) for each, array in zip(found, arrays, strict=True))


@given(st.lists(SMALL, min_size=1, max_size=4))
def test_extents_point_at_the_bytes_of_their_members(arrays):
    """One sample is one range request, so an extent that is off by one block is a corrupt dataset."""
    members, data, extents = shard(arrays)

    assert [extent.name for extent in extents] == [member.name for member in members]
    assert [data[e.offset : e.offset + e.length] for e in extents] == [member.data for member in members]


@given(st.lists(st.binary(max_size=1500), max_size=5))
def test_extents_agree_with_tarfile_for_any_member_size(blobs):
    """Members are padded to blocks of 512; empty ones and ones that end on a block are where arithmetic goes wrong."""
    data, extents = pack_tar([Member(name=f"{i}.npy", data=blob) for i, blob in enumerate(blobs)])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(e.name, e.offset, e.length) for e in extents] == [(i.name, i.offset_data, i.size) for i in tar]


def test_equal_samples_are_equal_bytes():
    """Retries, other workers and other days must write the same object: no time, owner or mode of the writing process."""
    arrays = [np.arange(20, dtype=np.int16).reshape(1, 4, 5)]
    _, data, _ = shard(arrays)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        facts = {(i.mtime, i.uid, i.gid, i.uname, i.gname, i.mode) for i in tar}

    assert data == shard(arrays)[1]
    assert facts == {(0, 0, 0, "", "", 0o444)}


@pytest.mark.parametrize("key", ["a.b", "a/b"])
def test_keys_that_readers_would_cut_are_refused(key):
    """WebDataset splits a member's name at the first dot; two samples would become one."""
    with pytest.raises(GeometryError, match="dot or slash"):
        build_members(sample(np.zeros((1, 2, 2), np.uint8), key=key))


def test_the_record_is_plain_json_that_says_what_the_array_is():
    """Whoever unpacks a shard by hand finds units and origin beside the pixels."""
    view = sample(np.zeros((1, 16, 2, 2), np.uint8), Presentation.PSEUDO3D, extra={"image_height": 8, "image_width": 8})
    record = parse_record(build_members(view)[1].data)

    assert record["presentation"] == "pseudo3d"
    assert (record["slope"], record["intercept"], record["unit_low"], record["unit_high"]) == (1.0, -1024.0, -1000.0, 1000.0)
    assert (record["image_height"], record["source_uri"]) == (8, "s3://lab/raw/a.dcm")


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff\xfe", b""])
def test_a_record_that_is_no_json_object_is_refused(data):
    """A damaged member is named as such, not met later as a missing key."""
    with pytest.raises(GeometryError, match="record is"):
        parse_record(data)


def test_shard_names_sort_as_numbers():
    """Listings are sorted as text."""
    assert [shard_path("xray", n) for n in (9, 10)] == ["images/xray-000009.tar", "images/xray-000010.tar"]
    assert shard_path("xray", 9) < shard_path("xray", 10)


# ---- the guard on .npy ----


@given(SMALL)
def test_an_array_comes_back_read_only_and_without_a_copy(array):
    """The loader hands out views of the bytes it fetched; writing into them would change a neighbour's sample."""
    data = encode_npy(array)
    found = decode_npy(data, array.shape, array.dtype)

    assert np.array_equal(found, array)
    assert not found.flags.writeable
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))


def test_columns_first_arrays_are_stored_rows_first():
    """Bytes follow the values, not the memory order that a stage happened to leave."""
    array = np.asfortranarray(np.arange(6, dtype=np.int16).reshape(1, 2, 3))

    assert encode_npy(array) == encode_npy(np.ascontiguousarray(array))


def lying(header: dict[str, object], payload: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = repr(header).encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2 if version == (1, 0) else 4, "little") + text + payload


PROMISE = ((1, 2, 3), np.dtype("<i2"))
TRUE = {"descr": "<i2", "fortran_order": False, "shape": (1, 2, 3)}


def test_the_plain_header_of_these_tests_is_accepted():
    """Otherwise every refusal below could be for another reason."""
    assert decode_npy(lying(TRUE, bytes(12)), *PROMISE).shape == (1, 2, 3)


@pytest.mark.parametrize(
    "data",
    [
        lying(TRUE | {"shape": (1, 2, 3 * 2**40)}, bytes(12)),
        lying(TRUE | {"shape": (3, 2, 1)}, bytes(12)),
        lying(TRUE | {"descr": "<f2"}, bytes(12)),
        lying(TRUE | {"descr": ">i2"}, bytes(12)),
        lying(TRUE | {"fortran_order": True}, bytes(12)),
        lying(TRUE | {"descr": "|O"}, bytes(12)),
        lying(TRUE | {"descr": "no dtype"}, bytes(12)),
        lying({"shape": (1, 2, 3)}, bytes(12)),
        lying(TRUE, bytes(11)),
        lying(TRUE, bytes(13)),
        lying(TRUE, bytes(12))[:40],
        lying(TRUE, bytes(12), version=(9, 9)),
        pickle.dumps(np.zeros((1, 2, 3), np.int16)),
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x01\x00\x84\x03" + b"-" * 899 + b"1",
    ],
)
def test_an_npy_that_does_not_keep_the_promise_is_refused(data):
    """Header, catalog and length must agree before a byte is given memory on a stranger's word."""
    with pytest.raises(GeometryError):
        decode_npy(data, *PROMISE)


def test_objects_are_refused_even_if_the_catalog_promises_them():
    """A forged catalog and a forged file may agree; arrays of objects would still run pickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)

    with pytest.raises(GeometryError, match="objects"):
        decode_npy(buffer.getvalue(), (1,), np.dtype(object))


def test_objects_are_refused_on_write():
    """What must not be read is not written either."""
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        encode_npy(np.array([{"a": 1}], object))
    with pytest.raises(GeometryError, match="pickle"):
        sample(np.full((1, 1, 1), None, object))


def test_a_promise_too_large_for_64_bits_is_refused():
    """2**32 * 2**32 elements wrap round to 0 in machine arithmetic, which is exactly the length of nothing."""
    shape = (2**32, 2**32)
    with pytest.raises(GeometryError):
        decode_npy(lying({"descr": "<i2", "fortran_order": False, "shape": shape}), shape, np.dtype("<i2"))


@given(st.integers(0, 139), st.integers(0, 255))
def test_one_wrong_byte_is_noticed_or_harmless(position, value):
    """Whatever a store or a network did to a header, the answer is a refusal in words or the right shape: nothing else."""
    data = bytearray(lying(TRUE, bytes(12)))
    data[position] = value
    with contextlib.suppress(GeometryError):
        assert decode_npy(bytes(data), *PROMISE).shape == (1, 2, 3)


def test_threads_that_read_at_once_do_not_disturb_each_other():
    """Python 3.11's parser of literals does, when a thread lets go in the middle of it: it counts its depth for all of them."""

    def let_go(phase: str, info: dict[str, int]) -> None:
        time.sleep(0)

    data, (shape, dtype), before = lying(TRUE, bytes(12)), PROMISE, gc.get_threshold()
    gc.callbacks.append(let_go)
    gc.set_threshold(5)
    try:
        with ThreadPoolExecutor(8) as threads:
            found = threads.map(lambda _: {decode_npy(data, shape, dtype).shape for _ in range(300)}, range(8))
            assert set().union(*found) == {shape}
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(let_go)


def test_members_of_one_sample_share_its_key():
    """Grouping by key is how every reader of this layout finds what belongs together."""
    members = build_members(replace(sample(np.zeros((1, 2, 2), np.uint8)), key="k" * 32))

    assert [m.name for m in members] == ["k" * 32 + ".npy", "k" * 32 + ".json"]
    assert json.loads(members[1].data)["key"] == "k" * 32
