"""The superpatch bank: what zarr-python writes, we find without zarr-python; what lies, we refuse before decompressing."""

from __future__ import annotations

import asyncio
import struct

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from crossdim.storage_schema.bank import (
    AIR,
    BLOSC,
    CRC_BYTES,
    DIMENSION_NAMES,
    DTYPE,
    BankLayout,
    bank_path,
    extract_blosc_frame,
    parse_shard_index,
)
from crossdim.storage_schema.errors import GeometryError

LAYOUT = BankLayout(side=4, patches_per_shard=8)
#: Position 2 and everything after 5 hold no sample.
FILLED = (0, 1, 3, 4, 5)


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    values = np.full(LAYOUT.shard_shape, AIR, DTYPE)
    values[list(FILLED)] = np.random.default_rng(0).integers(1, 2000, (len(FILLED), *LAYOUT.chunk_shape[1:]))
    return values


@pytest.fixture(scope="module")
def store(patches) -> MemoryStore:
    """Two shards by zarr-python; the second is never written."""
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=LAYOUT.array_shape(2),
        shards=LAYOUT.shard_shape,
        chunks=LAYOUT.chunk_shape,
        dtype=DTYPE,
        fill_value=AIR,
        compressors=[BloscCodec(**BLOSC), Crc32cCodec()],
        dimension_names=DIMENSION_NAMES,
    )
    array[: LAYOUT.patches_per_shard] = patches
    return store


def stored(store: MemoryStore, key: str) -> bytes | None:
    found = asyncio.run(store.get(key, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


@pytest.fixture(scope="module")
def shard(store) -> bytes:
    return stored(store, LAYOUT.shard_object(0))


@pytest.fixture(scope="module")
def chunk(shard) -> bytes:
    extent = parse_shard_index(shard, LAYOUT.patches_per_shard)[0]
    return shard[extent.offset : extent.offset + extent.length]


def test_each_superpatch_is_one_range_of_the_shard(shard, patches):
    """The loader never loads zarr: index arithmetic, crc32c and numcodecs give the array that zarr-python was handed."""
    extents = parse_shard_index(shard, LAYOUT.patches_per_shard)

    assert [n for n, extent in enumerate(extents) if extent] == list(FILLED)
    for number in FILLED:
        data = shard[extents[number].offset : extents[number].offset + extents[number].length]
        raw = numcodecs.Blosc().decode(extract_blosc_frame(data, LAYOUT.chunk_shape, DTYPE))

        assert google_crc32c.value(data[:-CRC_BYTES]) == int.from_bytes(data[-CRC_BYTES:], "little")
        assert np.array_equal(np.frombuffer(raw, DTYPE).reshape(LAYOUT.chunk_shape[1:]), patches[number])


def test_a_shard_without_samples_is_no_object(store):
    """Room left at the end of a bank costs nothing."""
    assert stored(store, LAYOUT.shard_object(1)) is None
    assert stored(store, LAYOUT.shard_object(0)) is not None


def test_equal_superpatches_are_equal_bytes(chunk, patches):
    """A retried task must write the same object, so the codec must not depend on anything but its input."""
    blosc = numcodecs.Blosc(cname=BLOSC["cname"], clevel=BLOSC["clevel"], shuffle=numcodecs.Blosc.BITSHUFFLE)

    assert chunk[:-CRC_BYTES] == blosc.encode(np.ascontiguousarray(patches[0]))


@given(st.data())
def test_a_cut_shard_is_refused(shard, data):
    """A PUT that ended early, or a range that fell short, has no index at its end; no sample may be made up from pixels."""
    cut = shard[: data.draw(st.integers(0, len(shard) - 1))]

    with pytest.raises(GeometryError, match=r"at least|places superpatch"):
        parse_shard_index(cut, LAYOUT.patches_per_shard)


def index(*entries: tuple[int, int], size: int = 400) -> bytes:
    return bytes(size) + b"".join(struct.pack("<QQ", *entry) for entry in entries) + bytes(CRC_BYTES)


@pytest.mark.parametrize("entry", [(0, 401), (399, 2), (2**63, 1), (2**64 - 2, 2), (2**64 - 2, 2**64 - 1), (0, 2**64 - 1)])
def test_an_index_that_points_outside_is_refused(entry):
    """Offsets and lengths are 64-bit; their sum may not wrap round into the shard."""
    with pytest.raises(GeometryError, match=f"places superpatch 1 at {entry[0]}"):
        parse_shard_index(index((0, 100), entry), 2)


@pytest.mark.parametrize("length", [0, 19])
def test_an_index_entry_too_short_for_a_superpatch_is_refused(length):
    """A shard cut inside of a run of zeros would else be read as superpatches of no bytes."""
    with pytest.raises(GeometryError, match="places superpatch 1"):
        parse_shard_index(index((0, 100), (100, length)), 2)


def header(chunk: bytes, *, num_bytes: int | None = None, compressed: int | None = None) -> bytes:
    fields = list(struct.unpack_from("<BBBBIII", chunk))
    fields[4] = fields[4] if num_bytes is None else num_bytes
    fields[6] = fields[6] if compressed is None else compressed
    return struct.pack("<BBBBIII", *fields) + chunk[16:]


def test_a_chunk_that_announces_another_size_is_refused(chunk):
    """Checked against the header alone: a bomb of 4 GB must not be given memory first."""
    for lie in (
        header(chunk, num_bytes=2**32 - 1),
        header(chunk, num_bytes=127),
        header(chunk, compressed=2**31),
        chunk[:-1],
        chunk + b"0",
    ):
        with pytest.raises(GeometryError, match="superpatch announces"):
            extract_blosc_frame(lie, LAYOUT.chunk_shape, DTYPE)


@pytest.mark.parametrize("length", [0, 3, 4, 19])
def test_a_cut_chunk_is_refused(chunk, length):
    """Less than a header and a checksum is no superpatch."""
    with pytest.raises(GeometryError, match="is cut"):
        extract_blosc_frame(chunk[:length], LAYOUT.chunk_shape, DTYPE)


def test_a_promise_too_large_for_64_bits_is_refused(chunk):
    """2**32 * 2**32 voxels wrap round to 0 in machine arithmetic."""
    with pytest.raises(GeometryError, match="the catalog promises 36893488147419103232"):
        extract_blosc_frame(chunk, (2**32, 2**32), DTYPE)


def test_a_bank_is_named_by_source_and_spacing():
    """Patches of another spacing are another bank: mixing them would mix scales."""
    assert bank_path("chest", "iso1mm") == "superpatches/chest-iso1mm.zarr"
    assert LAYOUT.shard_object(7) == "c/7/0/0/0"
