"""TIFF, BMP and WebP, held to tifffile's and Pillow's own reading and to what was written."""

from __future__ import annotations

import importlib
import io

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.readers.signatures import Unread
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

GRAY = (np.arange(40 * 50).reshape(40, 50) % 251).astype(np.uint8)
DEEP = GRAY.astype(np.uint16) * 257 + 3
COLOUR = np.stack([GRAY, GRAY[::-1], 250 - GRAY], axis=-1)


def tiff(array: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def read(format_name: str, data: bytes, **rules: object) -> Sample:
    return READERS[format_name].decode(RawItem(uri="x", files=(data,), rules=ReadRules(**rules)))


def looked_at(name: str, data: bytes) -> HeaderInfo | Unread:
    return probe(name, len(data), lambda size: data[:size], ReadRules())


def refusal(format_name: str, data: bytes, **rules: object) -> SampleError:
    with pytest.raises(SampleError) as caught:
        read(format_name, data, **rules)
    return caught.value


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("array", [GRAY, DEEP, COLOUR], ids=["8", "16", "rgb"])
def test_pixels_of_tiff_are_those_that_were_written(array, bigtiff, byteorder):
    data = tiff(array, bigtiff=bigtiff, byteorder=byteorder)
    found = looked_at("scan001", data)
    assert isinstance(found, HeaderInfo)
    assert (found.format, found.shape) == ("tiff", (40, 50))
    expected = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    sample = read("tiff", data)
    np.testing.assert_array_equal(sample.array, expected)
    assert sample.array.dtype == array.dtype


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits", "zstd", "lzma", "jpeg2000"])
@pytest.mark.parametrize("layout", [{"tile": (16, 16)}, {"rowsperstrip": 7}, {"rowsperstrip": 7, "predictor": True}])
def test_compressions_and_layouts_of_tiff(layout, compression):
    if layout.get("predictor") and compression not in ("lzw", "zlib", "zstd", "lzma"):
        layout = {"rowsperstrip": 7}
    options = {"compressionargs": {"reversible": True}} if compression == "jpeg2000" else {}
    np.testing.assert_array_equal(read("tiff", tiff(DEEP, compression=compression, **layout, **options)).array[0], DEEP)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "jpeg"])
def test_a_missing_codec_is_named_with_its_remedy(compression, monkeypatch):
    """Tifffile without imagecodecs, as on a machine without the extra."""
    data = tiff(GRAY, compression=compression)
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", importlib.import_module("tifffile._imagecodecs"))
    monkeypatch.setattr(tifffile.tifffile, "TIFF", tifffile.tifffile._TIFF())
    error = refusal("tiff", data)
    assert error.rule == "codec"
    assert "pip install 'crossdim[tiff]'" in str(error)


def test_planes_of_colour_one_behind_the_other():
    data = tiff(COLOUR.transpose(2, 0, 1), planarconfig="separate", photometric="rgb")
    np.testing.assert_array_equal(read("tiff", data).array, COLOUR.transpose(2, 0, 1))


def test_white_that_is_zero_is_inverted():
    np.testing.assert_array_equal(read("tiff", tiff(GRAY, photometric="miniswhite")).array[0], 255 - GRAY)
    np.testing.assert_array_equal(read("tiff", tiff(DEEP, photometric="miniswhite")).array[0], 65535 - DEEP)


def test_few_bits_fill_the_range():
    bits = GRAY > 100
    np.testing.assert_array_equal(read("tiff", saved(Image.fromarray(bits), "TIFF")).array[0], bits * 255)
    four = GRAY % 16
    np.testing.assert_array_equal(read("tiff", tiff(four, bitspersample=4)).array[0], four * 17)


def test_a_palette_becomes_rgb():
    picture = Image.fromarray(GRAY % 7, "P")
    picture.putpalette([value % 256 for value in range(0, 7 * 3 * 11, 11)])
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read("tiff", saved(picture, "TIFF")).array, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow_reading_the_same_tag(orientation):
    from PIL import ImageOps

    data = tiff(GRAY, extratags=[(274, "H", 1, orientation, True)])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(read("tiff", data).array[0], expected)


def test_alpha_is_composited_over_black():
    alpha = np.full(GRAY.shape, 128, np.uint8)
    data = tiff(np.dstack([COLOUR, alpha]), photometric="rgb", extrasamples=["unassalpha"])
    sample = read("tiff", data)
    np.testing.assert_allclose(sample.array, COLOUR.transpose(2, 0, 1) * (128 / 255), atol=0.51)
    assert "composited over black" in str(sample.extra["note"])
    opaque = tiff(np.dstack([COLOUR, alpha * 0 + 255]), photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read("tiff", opaque).array, COLOUR.transpose(2, 0, 1))


def test_deep_colour_is_read_as_8_bits_and_noted():
    sample = read("tiff", tiff(COLOUR.astype(np.uint16) * 257))
    np.testing.assert_array_equal(sample.array, COLOUR.transpose(2, 0, 1))
    assert "16-bit colour" in str(sample.extra["note"])


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (tiff(np.stack([GRAY, GRAY]), photometric="minisblack"), "multi_frame"),
        (tiff(GRAY.astype(np.float32)), "pixel_mode"),
        (tiff(GRAY.astype(np.int16)), "pixel_mode"),
        (tiff(np.dstack([COLOUR, GRAY]), photometric="separated"), "pixel_mode"),
        (tiff(np.full((8, 8), 7, np.uint8)), "constant"),
    ],
    ids=["pages", "float", "signed", "cmyk", "constant"],
)
def test_other_content_of_tiff_is_refused_by_rule(data, rule):
    assert refusal("tiff", data).rule == rule


def test_a_reduced_copy_is_no_second_page():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GRAY)
        writer.write(GRAY[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read("tiff", stream.getvalue()).array[0], GRAY)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "lzw", "tile": (16, 16)}])
def test_a_tiff_that_is_cut_anywhere_is_refused(options):
    data = tiff(DEEP, **options)
    for length in [*range(8, len(data), 97), len(data) - 1]:
        assert refusal("tiff", data[:length]).rule in ("truncated", "damaged", "pixel_mode", "dimensions"), length


@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_byte_of_a_tiff_gives_an_image_or_a_refusal(place, value):
    data = bytearray(tiff(GRAY, compression="zlib"))
    data[place % len(data)] = value
    try:
        sample = read("tiff", bytes(data), max_pixels=1 << 20)
    except SampleError:
        return
    assert sample.array.dtype in (np.uint8, np.uint16)


def test_a_size_that_the_header_claims_is_refused_before_memory_is_asked_for():
    data = bytearray(tiff(GRAY))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].tags["ImageLength"].valueoffset
    data[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    assert refusal("tiff", bytes(data)).rule == "too_large"


@pytest.mark.parametrize("tag", [{"description": "Aperio Image Library v1"}])
def test_a_whole_slide_is_told_by_its_content(tag):
    assert looked_at("scan001.tif", tiff(COLOUR, **tag)) == Unread(format="SVS", is_image=True)


@pytest.mark.parametrize("kind", ["BMP", "WEBP"])
def test_bmp_and_lossless_webp_give_the_pixels_that_were_written(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(COLOUR), kind, **options)
    name = kind.lower()
    found = looked_at("scan001", data)
    assert isinstance(found, HeaderInfo)
    assert (found.format, found.shape) == (name, (40, 50))
    np.testing.assert_array_equal(read(name, data).array, COLOUR.transpose(2, 0, 1))


def test_gray_bmp_stays_gray():
    np.testing.assert_array_equal(read("bmp", saved(Image.fromarray(GRAY), "BMP")).array[0], GRAY)


def test_pictures_may_carry_each_others_suffixes():
    assert isinstance(looked_at("a.png", saved(Image.fromarray(GRAY), "BMP")), HeaderInfo)
    with pytest.raises(SampleError, match="the name promises picture, the content is tiff"):
        looked_at("a.png", tiff(GRAY))


def test_an_animation_is_refused():
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    data = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert refusal("webp", data).rule == "multi_frame"


@pytest.mark.parametrize("kind", ["BMP", "WEBP"])
def test_a_cut_bmp_or_webp_is_refused(kind):
    data = saved(Image.fromarray(COLOUR), kind, **({"lossless": True} if kind == "WEBP" else {}))
    for length in [*range(60, len(data), 211), len(data) - 3]:  # rows of BMP are filled up with two bytes
        assert refusal(kind.lower(), data[:length]).rule == "damaged", length
