"""Sizes that headers claim are refused or held to what is stated, before memory is asked for."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from crossdim.pipelines import decoder_process
from crossdim.pipelines.readers import dicom_header, raster, series
from crossdim.pipelines.readers.dicom import read_pixels
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.inflate import inflate, inflate_start
from crossdim.pipelines.readers.raw import FREE_VALUES, MAX_VALUES_PER_BYTE, RawItem, ReadRules, check_expansion
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.recipes import resolve
from crossdim.pipelines.stages.intensity import FULL, Intensity, compute_own_window, store
from crossdim.pipelines.stages.resize import shrink
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.vocabulary import Modality
from tests.pipelines.code_streams import file_of, saved
from tests.pipelines.corpora import nifti_bytes
from tests.pipelines.dicom_files import dicom_bytes, dicom_dataset
from tests.pipelines.test_stages import volume


def item(data: bytes, **rules: object) -> RawItem:
    return RawItem(uri="x", files=(data,), rules=ReadRules(**rules))


@pytest.mark.parametrize("recipe", ["ct-superpatches", "mixed-superpatches"])
def test_what_resampling_would_make_is_refused_by_the_plan(recipe):
    """10 x 10 x 10 voxels of 150 mm are 1500 x 1500 x 1500 at 1 mm; nothing is read for it."""
    with pytest.raises(SampleError, match=r"1500, 1500, 1500.*536,870,912.*too_large"):
        resolve(recipe).boxes((10, 10, 10), (150.0, 150.0, 150.0))


def test_a_large_volume_at_its_own_spacing_is_planned():
    """1000 x 1000 x 500 at 1 mm: 8 x 8 x 4 boxes of 128."""
    assert resolve("ct-superpatches").boxes((500, 1000, 1000), (1.0, 1.0, 1.0)) == 256


def test_a_series_of_more_voxels_than_the_guard_is_refused_by_the_plan():
    with pytest.raises(SampleError, match="too_large"):
        resolve("ct-superpatches").boxes((3000, 1000, 1000), (0.1, 0.1, 0.1))


@pytest.mark.parametrize("packed", [False, True])
def test_a_time_series_counts_as_its_first_frame(packed):
    """60 frames, of which one fits under the guard; the file does, too."""
    frames = np.random.default_rng(0).integers(0, 2, (10, 12, 14, 60)).astype(np.float32)
    data = nifti_bytes(frames, (1, 1, 1))
    guard = len(data) if not packed else 10 * 12 * 14 * 4
    sample = READERS["nifti"].decode(item(gzip.compress(data, mtime=0) if packed else data, max_bytes=guard))

    assert np.array_equal(sample.array[0], frames[..., 0].transpose(2, 1, 0))


def test_damage_behind_the_first_frame_is_found_all_the_same():
    data = bytearray(gzip.compress(nifti_bytes(np.random.default_rng(0).normal(size=(9, 9, 9, 20)), (1, 1, 1)), mtime=0))
    data[-200] ^= 1

    with pytest.raises(SampleError, match="gzip"):
        READERS["nifti"].decode(item(bytes(data)))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.integers(0, 400))
def test_a_start_is_the_start_of_the_whole(parts, wanted):
    data = b"".join(gzip.compress(part) for part in parts)
    whole = inflate(data, 1000)

    assert inflate_start(data, wanted, 1000) == (whole[:wanted], len(whole))


def test_a_file_larger_than_the_guard_is_refused_by_its_size():
    data = nifti_bytes(np.ones((4, 4, 4, 9), np.float32), (1, 1, 1))
    with pytest.raises(SampleError, match=r"read as a whole.*too_large"):
        decoder_process.probe("x.nii", len(data), lambda n: data[:n], ReadRules(max_bytes=len(data) - 1))


@pytest.mark.parametrize("modality", [Modality.CT, Modality.MR])
def test_storing_by_planes_is_storing_the_whole(modality):
    """Held to the formula on the whole volume, bit for bit."""
    values = (np.random.default_rng(0).normal(size=(7, 8, 9)) * 900).astype(np.float32)
    stored = store(volume(values, np.eye(4), modality), Intensity(window_hu=(-1001, 1000))).array[0]
    if modality is Modality.CT:
        expected = np.rint(np.clip(values, -1001, 1000)) - np.float32(-1001)
    else:
        low, high = compute_own_window(values, (0.5, 99.5))
        steps = (np.clip(values, low, high) - np.float32(low)) / np.float32((high - low) / FULL)
        expected = np.clip(np.rint(steps), 0, FULL)

    assert np.array_equal(stored, expected.astype(np.int16))


@pytest.mark.parametrize("dtype", ["i2", "u1", "f4", "f8"])
def test_rescaling_by_planes_is_rescaling_the_whole(dtype):
    stored = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(dtype)
    data = bytearray(nifti_bytes(stored, (1, 1, 1)))
    data[112:120] = np.array([0.37, -12.25], "<f4").tobytes()
    expected = (stored.astype(np.float64) * np.float64(np.float32(0.37)) - 12.25).astype(np.float32)

    assert np.array_equal(READERS["nifti"].decode(item(bytes(data))).array[0], expected.transpose(2, 1, 0))


@pytest.mark.parametrize("tags", [{"Rows": 0}, {"Columns": 0}, {"Rows": 0, "Columns": 0}, {"NumberOfFrames": -1}])
def test_a_dicom_image_of_no_size_is_refused_where_its_header_is_read(tags):
    with pytest.raises(SampleError, match=r"at least 1.*dimensions"):
        dicom_header.read_header(dicom_bytes(np.ones((4, 4), np.uint16), **tags), ReadRules())


@pytest.mark.parametrize("size", [(0, 0), (0, 4), (4, 0)])
def test_a_picture_of_no_size_is_refused_where_its_header_is_read(size):
    data = bytearray(saved(np.ones((4, 4), np.uint8), "PNG"))
    struct.pack_into(">II", data, 16, *size)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))

    with pytest.raises(SampleError):
        raster.read_header(bytes(data), ReadRules())


@pytest.mark.parametrize("tags", [{}, {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "Columns": 4}])
def test_max_pixels_holds_for_dicom_and_counts_channels(tags):
    data = dicom_bytes(np.arange(144, dtype=np.uint8).reshape(12, 12), **tags)

    assert isinstance(dicom_header.read_header(data, ReadRules(max_pixels=144)), HeaderInfo)
    for read in (lambda rules: dicom_header.read_header(data, rules), lambda rules: read_pixels(data, rules, colour=True)):
        with pytest.raises(SampleError, match=r"max_pixels.*too_large"):
            read(ReadRules(max_pixels=143))


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("I;16", 1), ("P", 3), ("RGB", 3), ("LA", 4), ("RGBA", 4)])
def test_max_pixels_counts_the_channels_of_a_picture(mode, channels):
    buffer = io.BytesIO()
    Image.new(mode, (6, 5)).save(buffer, "PNG")

    assert raster.read_header(buffer.getvalue(), ReadRules(max_pixels=30 * channels)).shape == (5, 6)
    with pytest.raises(SampleError, match=r"max_pixels.*too_large"):
        raster.read_header(buffer.getvalue(), ReadRules(max_pixels=30 * channels - 1))


@pytest.mark.integration
def test_a_small_file_that_promises_a_large_image_is_refused_before_its_codec_runs():
    """6000 x 6000 pixels in a JPEG 2000 stream of a few hundred bytes, which says the same as the DICOM header."""
    stream = saved(np.zeros((6000, 6000), np.uint8), "JPEG2000", no_jp2=True)
    tags = {"Rows": 6000, "Columns": 6000, "PixelData": encapsulate([stream])}
    dataset = dicom_dataset(np.zeros((2, 2), np.uint8), **tags)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless

    with pytest.raises(SampleError, match=r"36,000,000 values.*too_large"):
        read_pixels(file_of(dataset), ReadRules())


@pytest.mark.parametrize("num_bytes", [0, 10**3, 10**5, 10**6])
def test_few_bytes_promise_few_values(num_bytes):
    most = max(FREE_VALUES, MAX_VALUES_PER_BYTE * num_bytes)
    check_expansion(most, num_bytes)

    with pytest.raises(SampleError, match="too_large"):
        check_expansion(most + 1, num_bytes)


def test_a_series_of_small_files_that_promise_a_large_volume_is_refused():
    with pytest.raises(SampleError, match="too_large"):
        series.decode(RawItem(uri="s", files=(b"x" * 1000,) * 9, num_values=FREE_VALUES + 1))


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(["u1", "u2"]), st.integers(1, 300))
@settings(max_examples=20, deadline=None)
def test_shrinking_by_strips_is_shrinking_the_whole(height, width, dtype, side):
    image = np.random.default_rng(height).integers(0, 256, (1, height, width)).astype(dtype)
    found = shrink(image, side)
    size = (found.shape[2], found.shape[1])
    whole = np.asarray(Image.fromarray(image[0].astype(np.float32)).resize(size, Image.Resampling.LANCZOS))

    assert np.array_equal(found[0], np.clip(np.rint(whole), image.min(), image.max()))
