"""Siemens mosaics, against the same volume written slice by slice."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines.readers.dicom_header import read_header
from crossdim.pipelines.readers.dicom_mosaic import _parse_csa, _parse_protocol
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from tests.pipelines.dicom_files import dicom_bytes, dicom_dataset, read_series

SLICES, ROWS, COLUMNS, TILES = 7, 8, 10, 3
ROW_MM, COLUMN_MM, SLICE_MM = 2.0, 1.5, 3.0
VOLUME = np.random.default_rng(5).integers(0, 4000, (SLICES, ROWS, COLUMNS)).astype(np.int16)
ALONG_ROW, DOWN = np.array([1.0, 0, 0]), np.array([0, 0.8, -0.6])
NORMAL = np.cross(ALONG_ROW, DOWN)
#: The centre of the first pixel of the first slice.
CORNER = np.array([-20.0, -30.0, 40.0])
MR = {"Modality": "MR", "ImageOrientationPatient": [*ALONG_ROW, *DOWN], "PixelSpacing": [ROW_MM, COLUMN_MM]}


def position(place: int) -> np.ndarray:
    return CORNER + place * SLICE_MM * NORMAL


def centre(place: int) -> np.ndarray:
    return position(place) + DOWN * ROW_MM * (ROWS - 1) / 2 + ALONG_ROW * COLUMN_MM * (COLUMNS - 1) / 2


def protocol(places: list[int]) -> bytes:
    """The text that the CSA header of a series holds; a coordinate that is 0 is left out."""
    lines = [f"sSliceArray.lSize = {len(places)}"]
    for number, place in enumerate(places):
        for axis, value in zip(("dSag", "dCor", "dTra"), centre(place), strict=True):
            lines += [f"sSliceArray.asSlice[{number}].sPosition.{axis} = {value:.9g}"] if value else []
    return b"SV10...### ASCCONV BEGIN ###\n" + "\n".join(lines).encode() + b"\n### ASCCONV END ###..."


def csa(**tags: list[str]) -> bytes:
    """A CSA header of version 2."""
    data = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, values in tags.items():
        data += struct.pack("<64si4siii", name.encode(), 0, b"FD", 0, len(values), 77)
        for value in values:
            text = value.encode() + b"\0"
            data += struct.pack("<4i", 0, len(text), 77, 0) + text + b"\0" * (-len(text) % 4)
    return data


def mosaic(order: list[int], *, image: bytes = b"", series: bytes = b"", **tags: object) -> bytes:
    """Tiles that hold the slices in this order."""
    tiles = np.zeros((TILES**2, ROWS, COLUMNS), np.int16)
    tiles[:SLICES] = VOLUME[order]
    pixels = tiles.reshape(TILES, TILES, ROWS, COLUMNS).transpose(0, 2, 1, 3).reshape(TILES * ROWS, TILES * COLUMNS)
    half = DOWN * ROW_MM * (TILES - 1) * ROWS / 2 + ALONG_ROW * COLUMN_MM * (TILES - 1) * COLUMNS / 2
    stated: dict[str, Any] = {"ImagePositionPatient": list(position(order[0]) - half), "SpacingBetweenSlices": SLICE_MM}
    dataset = dicom_dataset(pixels, **{**MR, **stated, "ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"], **tags})
    for element, data in ((0x1010, image), (0x1020, series)):
        if data:
            dataset.add_new(0x00290000 | element, "OB", data + b"\0" * (len(data) % 2))
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def read(data: bytes) -> Sample:
    return READERS["dicom-frames"].decode(RawItem(uri="x", files=(data,)))


def fault(data: bytes) -> str:
    info = read_header(data, ReadRules())
    assert isinstance(info, HeaderInfo)
    assert info.affine is None
    assert info.slice
    with pytest.raises(SampleError, match="mosaic"):
        read(data)
    return info.slice.frames_fault


UP, AGAINST = list(range(SLICES)), list(reversed(range(SLICES)))
NUMBER = {"NumberOfImagesInMosaic": [str(SLICES)]}


def normal(sign: int) -> dict[str, list[str]]:
    return {**NUMBER, "SliceNormalVector": [f"{sign * value:.8f}" for value in NORMAL]}


@pytest.mark.parametrize(
    ("order", "image", "series"),
    [
        (UP, csa(**normal(1)), b""),
        (AGAINST, csa(**normal(-1)), b""),
        (UP, b"", protocol(UP)),
        (AGAINST, b"", protocol(UP)),
        (UP, b"", protocol(AGAINST)),
        (AGAINST, csa(**normal(1)), protocol(UP)),
    ],
    ids=["normal", "normal against", "protocol", "against the protocol", "protocol from above", "protocol before normal"],
)
def test_tiles_make_the_volume_that_the_same_slices_make(order, image, series):
    slices = tuple(
        dicom_bytes(plane, **MR, ImagePositionPatient=list(position(place)), SliceThickness=SLICE_MM)
        for place, plane in enumerate(VOLUME)
    )
    sample, expected = read(mosaic(order, image=image, series=series)), read_series(slices)
    np.testing.assert_array_equal(sample.array, expected.array)
    np.testing.assert_allclose(np.array(sample.affine), np.array(expected.affine), atol=1e-6)
    assert sample.spacing_mm == expected.spacing_mm


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (mosaic(UP), "number of its slices"),
        (mosaic(UP, image=csa(**NUMBER)), "direction of its slices"),
        (mosaic(UP, image=csa(**NUMBER, SliceNormalVector=["1", "0", "0"])), "direction of its slices"),
        (mosaic(UP, image=csa(**{**normal(1), "NumberOfImagesInMosaic": ["17"]})), "no 5x5 tiles"),
        (mosaic(UP, image=csa(**{**normal(1), "NumberOfImagesInMosaic": ["-3"]})), "number of its slices"),
        (mosaic(UP, image=csa(**normal(1)), PixelSpacing=None), "position, orientation and spacing"),
    ],
)
def test_a_mosaic_that_does_not_say_where_its_slices_lie_is_refused(data, reason):
    assert reason in fault(data)


@given(data=st.binary(max_size=400), place=st.integers(0, 10**4), value=st.integers(0, 255))
def test_no_bytes_of_a_private_header_are_an_error(data, place, value):
    _parse_csa(b"SV10" + data)
    _parse_protocol(data)
    whole = bytearray(csa(**normal(1)))
    whole[place % len(whole)] = value
    assert set(map(type, _parse_csa(bytes(whole)).values())) <= {list}
