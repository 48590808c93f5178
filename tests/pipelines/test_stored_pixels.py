"""DICOM pixels that are more, or of another sign, than their header says: decoders cut them and say nothing."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.encoders.native import _encode_segment
from pydicom.uid import JPEG2000Lossless

from crossdim.pipelines.readers import dicom_image
from crossdim.pipelines.readers.code_stream import FrameHeader, _rle_length, check_code_streams
from crossdim.pipelines.readers.dicom import AS_SIGNED_NOTE, TRAILING_NOTE
from crossdim.pipelines.readers.raw import RawItem
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from tests.pipelines.code_streams import COMPRESSED, compressed, file_of, phantom
from tests.pipelines.dicom_files import dicom_dataset

HEIGHT, WIDTH = 48, 64


def _decode(dataset: pydicom.Dataset) -> Sample:
    return dicom_image.decode(RawItem(uri="a.dcm", files=(file_of(dataset),)))


def _refusal(dataset: pydicom.Dataset) -> SampleError:
    with pytest.raises(SampleError) as refused:
        _decode(dataset)
    return refused.value


@pytest.mark.parametrize("other", [{"Columns": WIDTH - 1}, {"Columns": WIDTH - 8}, {"Rows": HEIGHT - 1}, {"Rows": HEIGHT // 2}])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_pixels_of_more_rows_or_columns_are_refused(other: dict[str, int], dtype: str) -> None:
    """Also where the picture ends in black, which could be taken for padding: a sheared image would be published."""
    image = phantom(HEIGHT, WIDTH, dtype)
    for black in (0, HEIGHT // 2):
        image[HEIGHT - black :] = 0
        dataset = dicom_dataset(image)
        for name, value in other.items():
            setattr(dataset, name, value)
        found = _refusal(dataset)
        assert found.rule == "pixel_length"
        assert f"PixelData has {image.nbytes:,} bytes" in found.reason


@pytest.mark.parametrize("other", [{"Columns": WIDTH - 1}, {"Rows": HEIGHT - 1}, {"Columns": WIDTH // 2}, {"Rows": HEIGHT + 1}])
@pytest.mark.parametrize("syntax", COMPRESSED, ids=lambda uid: uid.keyword)
def test_compressed_pixels_of_another_size_are_refused(syntax: pydicom.uid.UID, other: dict[str, int]) -> None:
    dataset = pydicom.dcmread(io.BytesIO(compressed(syntax)))
    for name, value in other.items():
        setattr(dataset, name, value)
    assert _refusal(dataset).rule in ("code_stream", "pixel_length", "truncated")


@pytest.mark.parametrize("length", [1, 2, 37, 100])
def test_zeros_behind_the_pixels_are_noted_and_other_bytes_refused(length: int) -> None:
    """Up to what a row or a column more would have: 48 pixels of two bytes."""
    image = phantom(HEIGHT, WIDTH) * 257 + 257
    padded, moved = dicom_dataset(image), dicom_dataset(image)
    padded.PixelData += bytes(length)
    data = moved.PixelData
    moved.PixelData = data[:1000] + b"\x07" * length + data[1000:]
    if length < 96:
        sample = _decode(padded)
        assert np.array_equal(sample.array, _decode(dicom_dataset(image)).array)
        assert TRAILING_NOTE in sample.extra["note"]
    else:
        assert _refusal(padded).rule == "pixel_length"
    assert _refusal(moved).rule == "pixel_length"


def test_a_byte_that_makes_the_length_even_is_no_news() -> None:
    sample = _decode(dicom_dataset(phantom(15, 17, "u1")))
    assert TRAILING_NOTE not in sample.extra["note"]


@given(st.binary(min_size=1, max_size=400), st.integers(1, 3))
def test_segments_are_as_long_as_what_was_packed(data: bytes, repeats: int) -> None:
    """By pydicom's encoder, with runs and without, and with the byte that makes a segment even."""
    row = np.repeat(np.frombuffer(data, np.uint8), repeats)
    packed = bytes(_encode_segment(row.tobytes(), row.size))
    assert _rle_length(packed) == row.size


def _with_sign(signed: bool) -> pydicom.Dataset:
    """JPEG 2000 of 13 bits, as OpenJPEG encodes them; the flag of the sign stands in its header."""
    values = phantom(HEIGHT, WIDTH).astype(np.int16) - (1100 if signed else 0)
    dataset = dicom_dataset(values)
    dataset.BitsStored, dataset.HighBit = 13, 12
    dataset.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)
    return dataset


def test_negative_samples_of_an_unsigned_image_are_refused() -> None:
    dataset = _with_sign(signed=True)
    dataset.PixelRepresentation = 0
    found = _refusal(dataset)
    assert (found.rule, "PixelRepresentation says that there are none" in found.reason) == ("code_stream", True)


def test_a_sign_that_changes_no_value_is_no_obstacle() -> None:
    """Every sample is small and positive, whoever is right."""
    dataset = _with_sign(signed=False)
    dataset.PixelRepresentation = 0
    assert np.array_equal(_decode(dataset).array[0], phantom(HEIGHT, WIDTH) - phantom(HEIGHT, WIDTH).min())


def test_unsigned_samples_of_a_signed_image_are_its_bits() -> None:
    """A file that pydicom was sent: air of -2000 in 13 bits, stored as 6192."""
    dataset = pydicom.dcmread(get_testdata_file("J2K_pixelrep_mismatch.dcm"))
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    promised = FrameHeader(rows=dataset.Rows, columns=dataset.Columns, samples=1, bits=16)
    assert not check_code_streams(encapsulate([frame]), dataset.file_meta.TransferSyntaxUID, promised)[0].signed
    sample = _decode(dataset)
    assert AS_SIGNED_NOTE in sample.extra["note"]
    assert sample.scaling.physical(sample.array).min() == -2000
