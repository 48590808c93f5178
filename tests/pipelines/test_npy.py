"""NumPy's .npy files, held to what NumPy writes; damaged headers are refused by a rule."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.npy import NO_PLACE_NOTE
from crossdim.pipelines.readers.npy_header import MAGIC, parse_npy_header
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

GRAY = (np.arange(40 * 50).reshape(40, 50) % 251).astype(np.uint8)
VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) * 7 - 300
NUMBERS = ("<u1", "<i1", "<u2", ">u2", "<i2", ">i2", "<u4", "<i4", "<i8", "<f2", ">f4", "<f4", "<f8", ">f8")


def saved(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def with_header(text: str, payload: bytes = b"") -> bytes:
    return MAGIC + b"\1\0" + struct.pack("<H", len(text)) + text.encode() + payload


def looked_at(data: bytes) -> HeaderInfo:
    found = probe("scan.npy", len(data), lambda size: data[:size], ReadRules())
    assert isinstance(found, HeaderInfo)
    return found


def read(data: bytes, **rules: Any) -> Sample:
    return READERS[looked_at(data).format].decode(RawItem(uri="x", files=(data,), rules=ReadRules(**rules)))


def rule_of(data: bytes) -> str:
    with pytest.raises(SampleError) as caught:
        read(data)
    return caught.value.rule


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_of_two_axes_or_of_rgb_is_an_image(channels, dtype, order, version):
    array = GRAY if channels == 1 else np.stack([GRAY, GRAY[::-1], 250 - GRAY], axis=-1)
    array = np.asarray(array.astype(dtype), order=order)
    data = saved(array, version)
    assert (looked_at(data).format, looked_at(data).shape, looked_at(data).spacing_mm) == ("numpy", (40, 50), None)
    sample = read(data)
    np.testing.assert_array_equal(sample.array, array[None] if channels == 1 else array.transpose(2, 0, 1))
    assert sample.array.dtype == np.dtype(dtype).newbyteorder("=")
    assert sample.array.flags.c_contiguous


@pytest.mark.parametrize("dtype", NUMBERS)
def test_values_of_a_volume_are_those_that_were_written(dtype):
    array = np.abs(VOLUME % 120).astype(dtype)
    sample = read(saved(array))
    np.testing.assert_array_equal(sample.array[0], array.astype(np.float32))
    assert sample.spacing_mm == (1, 1, 1)
    assert NO_PLACE_NOTE in str(sample.extra["note"])


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_voxel_lies_where_its_index_says(order):
    """Index (z, y, x) is x mm left, y mm posterior and z mm superior of the first voxel, in whichever order it is stored."""
    sample = read(saved(np.asarray(VOLUME, order=order)))
    affine = np.array(sample.affine)
    for place in np.ndindex(sample.array.shape[1:]):
        right, anterior, superior = (affine @ [*place, 1])[:3]
        assert sample.array[0][place] == VOLUME[int(superior), int(-anterior), int(-right)]


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (with_header("{'descr': '<u1', 'fortran_order': False, 'shape': (4 5), }", bytes(20)), "npy_header"),
        (saved(GRAY)[:-1], "truncated"),
        (saved(GRAY)[:30], "truncated"),
        (saved(GRAY) + b"\0", "too_long"),
        (saved(VOLUME)[:-1], "truncated"),
        (saved(GRAY.astype(np.float32)), "datatype"),
        (saved(GRAY.astype(bool)), "datatype"),
        (saved(VOLUME.astype(np.complex64)), "datatype"),
        (saved(VOLUME[None]), "dimensions"),
        (saved(VOLUME.ravel()), "dimensions"),
        (saved(VOLUME[:0]), "dimensions"),
        (saved(np.zeros((4, 4), np.uint8)), "constant"),
        (with_header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }", b"\x80\x04N."), "datatype"),
        (with_header("{'descr': [('a', '<u1')], 'fortran_order': False, 'shape': (2, 2), }"), "datatype"),
        (with_header("{'descr': '<u1', 'fortran_order': False, 'shape': (60000, 60000), }"), "too_large"),
        (with_header("{'descr': '<u1', 'fortran_order': False, 'shape': (60000, 60000, 60000), }"), "too_large"),
        (with_header("{'descr': '<u1', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }"), "npy_header"),
        (with_header("{'descr': '<u1', 'fortran_order': False}"), "npy_header"),
        (MAGIC + b"\2\0" + struct.pack("<I", 2**31) + b" " * 99, "npy_header"),
        (MAGIC + b"\7\0" + bytes(99), "npy_header"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_a_rule(data, rule):
    assert rule_of(data) == rule


def test_a_minor_version_that_no_format_has_is_refused_as_by_numpy():
    changed = saved(VOLUME)[:7] + b"\1" + saved(VOLUME)[8:]
    with pytest.raises(SampleError, match="versions 1 to 3"):
        parse_npy_header(changed)
    with pytest.raises(ValueError, match="format version"):
        np.load(io.BytesIO(changed))


@given(data=st.data())
def test_a_damaged_header_is_read_as_numpy_reads_it_or_refused(data):
    """NumPy, whose parser is another one, is the reference for whatever we accept."""
    whole = saved(VOLUME)
    changed = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=3)):
        changed[place] = data.draw(st.integers(0, 255))
    try:
        header = parse_npy_header(bytes(changed))
    except (SampleError, EOFError):
        return
    if header.num_bytes > VOLUME.nbytes:
        return  # the decoder refuses it as cut
    expected = np.load(io.BytesIO(bytes(changed)), allow_pickle=False)
    assert (header.shape, header.dtype) == (expected.shape, expected.dtype)
    start = header.data_offset
    np.testing.assert_array_equal(np.frombuffer(bytes(changed)[start:], header.dtype, expected.size), expected.ravel(order="K"))
