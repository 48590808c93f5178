"""Decoders on made files: what is stated is read, what is damaged is refused, and nothing is believed before it is checked."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLSNearLossless

from crossdim.pipelines import decoder_process
from crossdim.pipelines.readers import dicom_image, raster, series
from crossdim.pipelines.readers.exif import DAMAGED_NOTE
from crossdim.pipelines.readers.inflate import inflate
from crossdim.pipelines.readers.raw import RawItem, ReadRules, add_note
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.readers.slice_order import SliceHeader, stack_slices
from crossdim.storage_schema.errors import SampleError, UsageError
from tests.pipelines.corpora import blob, nifti_bytes, picture, write_series

VOLUME = np.random.default_rng(0).integers(-500, 500, (5, 6, 7)).astype(np.int16)


def item(data: bytes, **rules: object) -> RawItem:
    return RawItem(uri="x", files=(data,), rules=ReadRules(**rules))


def rule_of(decode, data: bytes, **rules: object) -> str:
    with pytest.raises(SampleError) as caught:
        decode(item(data, **rules))
    return caught.value.rule


def png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, "PNG")
    return buffer.getvalue()


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_gzip_members_are_joined_as_gzip_itself_joins_them(parts):
    data = b"".join(gzip.compress(part) for part in parts)

    assert inflate(data, 10_000) == gzip.decompress(data)


@given(st.binary(min_size=30, max_size=300), st.data())
def test_no_changed_byte_of_a_gzip_file_goes_unseen(content, data):
    """Whatever byte is changed: either zlib sees it, or it was one that means nothing, such as the time in the header."""
    packed = bytearray(gzip.compress(content, mtime=0))
    where = data.draw(st.integers(0, len(packed) - 1))
    packed[where] ^= data.draw(st.integers(1, 255))
    try:
        found = inflate(bytes(packed), 100_000)
    except SampleError:
        return
    assert found == content


def test_a_gzip_bomb_stops_at_what_the_header_promised():
    with pytest.raises(SampleError, match="too_long"):
        inflate(gzip.compress(b"\0" * 50_000_000), 1000)


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.99])
def test_cut_files_are_truncated(cut):
    plain = nifti_bytes(VOLUME, (1, 1, 1))
    packed = gzip.compress(plain)

    assert rule_of(READERS["nifti"].decode, packed[: int(len(packed) * cut)]) in ("truncated", "not_nifti")
    if cut > 0.5:
        assert rule_of(READERS["nifti"].decode, plain[: int(len(plain) * cut)]) == "truncated"


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_scalar_type_is_read_as_nibabel_reads_it(dtype):
    array = np.random.default_rng(1).integers(0, 100, (4, 5, 6)).astype(dtype)
    image = nibabel.Nifti1Image(array, np.eye(4), dtype=array.dtype)

    assert np.array_equal(READERS["nifti"].decode(item(image.to_bytes())).array[0], array.transpose(2, 1, 0).astype(np.float32))


def test_a_time_series_gives_its_first_frame_or_is_refused():
    frames = np.random.default_rng(1).integers(0, 100, (4, 5, 6, 3)).astype(np.int16)
    data = nifti_bytes(frames, (1, 1, 1))
    sample = READERS["nifti"].decode(item(data))

    assert np.array_equal(sample.array[0], frames[..., 0].transpose(2, 1, 0))
    assert sample.extra["note"] == "first of 3 frames"
    assert rule_of(READERS["nifti"].decode, data, frames="refuse") == "frames"

    frames[..., 0] = 7
    with pytest.raises(SampleError, match="every voxel of the first of 3 frames is 7"):
        READERS["nifti"].decode(item(nifti_bytes(frames, (1, 1, 1))))


def test_the_size_guard_stands_before_memory_is_asked_for():
    """The header claims 32767^3 voxels; the file has a few."""
    data = bytearray(nifti_bytes(VOLUME, (1, 1, 1)))
    data[42:48] = (32767).to_bytes(2, "little") * 3

    assert rule_of(READERS["nifti"].decode, bytes(data)) == "too_large"


def test_values_that_show_nothing_are_refused():
    assert rule_of(READERS["nifti"].decode, nifti_bytes(np.full((3, 3, 3), 7, np.int16), (1, 1, 1))) == "constant"
    assert rule_of(READERS["nifti"].decode, nifti_bytes(np.full((3, 3, 3), np.nan, np.float32), (1, 1, 1))) == "not_finite"
    assert rule_of(raster.decode, png(np.zeros((8, 8), np.uint8))) == "constant"


def test_no_changed_byte_of_a_png_goes_unseen():
    """Pillow alone accepts damaged pixel data whose stream still inflates; every chunk has a checksum, so look at it."""
    data = png(picture(1))
    for where in range(8, len(data), 97):
        damaged = bytearray(data)
        damaged[where] ^= 4
        assert rule_of(raster.decode, bytes(damaged)) in ("checksum", "truncated", "damaged", "too_large"), where


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
def test_modes_of_pillow_become_gray_or_rgb(mode):
    image = Image.fromarray(np.dstack([picture(n) for n in range(3)])).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    sample = raster.decode(item(buffer.getvalue()))
    expected = image.convert("L" if mode in ("1", "L") else "RGB")

    assert sample.array.shape[0] == (1 if mode in ("1", "L") else 3)
    assert np.allclose(sample.array, np.atleast_3d(np.asarray(expected)).transpose(2, 0, 1), atol=40 if mode == "CMYK" else 0)


def test_sixteen_bits_stay_sixteen_bits():
    array = (picture(1).astype(np.uint16) * 200) + 17
    sample = raster.decode(item(png(array)))

    assert sample.array.dtype == np.uint16
    assert np.array_equal(sample.array[0], array)
    assert (sample.scaling.low, sample.scaling.high) == (array.min(), array.max())


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_laid_over_black_and_noted_where_there_is_any(mode):
    gray = picture(1)
    opaque = Image.merge(mode, [Image.fromarray(gray)] * (len(mode) - 1) + [Image.new("L", gray.shape[::-1], 255)])
    half = Image.merge(mode, [Image.fromarray(gray)] * (len(mode) - 1) + [Image.new("L", gray.shape[::-1], 128)])
    found = [raster.decode(item(_saved(image))) for image in (opaque, half)]

    assert np.array_equal(found[0].array[0], gray)
    assert np.allclose(found[1].array[0], gray * (128 / 255), atol=1)
    assert [sample.extra.get("note") for sample in found] == [None, "alpha composited over black"]


def _saved(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def grey_png(rows: np.ndarray, bits: int, transparent: int) -> bytes:
    """A PNG of grey levels with ``bits`` bits, of which one is transparent (tRNS)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    shifts = range(bits - 1, -1, -1)
    packed = [np.packbits([[value >> shift & 1 for shift in shifts] for value in row]).tobytes() for row in rows.tolist()]
    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, 0, 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + line for line in packed))
    chunks = ((b"IHDR", header), (b"tRNS", struct.pack(">H", transparent)), (b"IDAT", lines), (b"IEND", b""))
    return raster.PNG_MAGIC + b"".join(chunk(kind, data) for kind, data in chunks)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_levels_fill_their_range_and_a_transparent_one_is_black(bits):
    """What Pillow leaves to the reader for every depth; black itself may be the transparent level."""
    top = (1 << bits) - 1
    rows = np.random.default_rng(6).integers(0, top, (16, 16), endpoint=True)
    rows[0, 0], rows[0, 1] = 0, top
    step = 1 if bits == 16 else 255 // top
    for level in (0, 1):
        sample = raster.decode(item(grey_png(rows, bits, level))) if bits > 1 or not level else None
        if sample is None:
            assert rule_of(raster.decode, grey_png(rows, bits, level)) == "constant"
            continue
        assert np.array_equal(sample.array[0], np.where(rows == level, 0, rows) * step)
        assert (sample.extra.get("note") == "alpha composited over black") == bool(level and (rows == level).any())


def test_exif_orientation_turns_the_picture():
    image = Image.fromarray(picture(1))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)

    assert np.array_equal(raster.decode(item(buffer.getvalue())).array[0], np.rot90(picture(1), -1))


def with_damaged_exif(kind: str, orientation: int, damage: Callable[[bytearray], bytes]) -> bytes:
    """A picture whose EXIF block is damaged, and whose chunks and segments are sound."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112], exif[0x011A] = "maker of scanners", "model model model", orientation, 72.0
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, kind, exif=exif, **({"quality": 100} if kind == "JPEG" else {}))
    data = buffer.getvalue()
    if kind == "JPEG":
        start = data.index(b"Exif\0\0")
        (length,) = struct.unpack_from(">H", data, start - 2)
        block = damage(bytearray(data[start + 6 : start - 2 + length]))
        return (
            data[: start - 2] + struct.pack(">H", 8 + len(block)) + data[start : start + 6] + block + data[start - 2 + length :]
        )
    start = data.index(b"eXIf") + 4
    (length,) = struct.unpack_from(">I", data, start - 8)
    block = damage(bytearray(data[start : start + length]))
    crc = zlib.crc32(b"eXIf" + block)
    return (
        data[: start - 8] + struct.pack(">I4s", len(block), b"eXIf") + block + struct.pack(">I", crc) + data[start + length + 4 :]
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_no_damage_of_exif_makes_sound_pixels_unreadable(kind, rng):
    def damage(block: bytearray) -> bytes:
        for _ in range(rng.randrange(1, 6)):
            block[rng.randrange(len(block))] = rng.randrange(256)
        return bytes(block[: rng.choice((len(block), rng.randrange(len(block))))])

    sound = raster.decode(item(with_damaged_exif(kind, 1, bytes))).array[0]
    found = raster.decode(item(with_damaged_exif(kind, 1, damage))).array[0]

    assert any(np.array_equal(found, np.rot90(flipped, turns)) for flipped in (sound, sound.T) for turns in range(4))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("kept", [4, 10, 30])
def test_damaged_exif_is_noted_and_read_in_the_decoder_process(kind, kept):
    data = with_damaged_exif(kind, 6, lambda block: bytes(block[:kept]))
    sample = decoder_process.decode(kind.lower(), item(data))

    assert sample.extra["note"] == DAMAGED_NOTE
    assert np.array_equal(sample.array, raster.decode(item(with_damaged_exif(kind, 1, bytes))).array)


@pytest.mark.parametrize("orientation", range(9))
def test_orientation_is_that_of_pillow(orientation):
    data = with_damaged_exif("PNG", orientation, bytes)
    sample = raster.decode(item(data))

    assert np.array_equal(sample.array[0], np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    assert "note" not in sample.extra


def test_a_transparent_colour_of_16_bits_is_refused_by_name():
    """Pillow compares its low bytes alone, so that white would be taken for 0x00FF."""
    rows = b"".join(b"\0" + b"\xff" * 6 * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"tRNS", struct.pack(">HHH", 255, 255, 255)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = [struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks]
    data = raster.PNG_MAGIC + b"".join(packed)

    assert rule_of(raster.decode, data) == "pixel_mode"
    with pytest.raises(SampleError, match="tRNS"):
        raster.read_header(data, ReadRules())


def test_a_picture_larger_than_the_guard_is_refused_by_its_header():
    assert rule_of(raster.decode, png(picture(1)), max_pixels=100) == "too_large"


def test_a_series_is_sorted_by_position_and_rescaled(tmp_path):
    """Names are shuffled and InstanceNumber is 1 everywhere; LPS positions become RAS."""
    volume = blob((12, 20, 16), 1)
    write_series(tmp_path, volume, "1.2.3")
    files = tuple(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    sample = series.decode(RawItem(uri="s", files=files))

    assert np.array_equal(sample.array[0], volume)
    assert sample.spacing_mm == (2.0, 1.5, 1.5)
    assert np.allclose(sample.affine, [[0, 0, -1.5, 10], [0, -1.5, 0, 20], [2, 0, 0, 5], [0, 0, 0, 1]])
    assert series.decode(RawItem(uri="t", files=files[::-1])).key == sample.key


@given(st.permutations(range(8)), st.floats(0.3, 6))
def test_order_and_spacing_come_from_positions_alone(order, gap):
    headers = [
        SliceHeader(rows=4, columns=5, position_mm=(1.0, 2.0, gap * n), orientation=(1, 0, 0, 0, 1, 0), spacing_mm=(1.0, 1.0))
        for n in order
    ]
    geometry = stack_slices(headers)

    assert [order[n] for n in geometry.order] == sorted(order)
    assert geometry.spacing_mm[0] == pytest.approx(gap, rel=1e-4)


def test_a_missing_codec_is_named_with_its_remedy(real_data, monkeypatch):
    """The same file on a machine without the extra."""
    data = (real_data / "dicom_single" / "jpeg_ls.dcm").read_bytes()
    dicom_image.decode(item(data))
    monkeypatch.setattr(get_decoder(JPEGLSNearLossless), "_available", {})

    assert rule_of(dicom_image.decode, data) == "codec"


def test_rules_and_notes():
    with pytest.raises(UsageError):
        ReadRules(frames="last")
    sample = READERS["nifti"].decode(item(nifti_bytes(VOLUME, (1, 1, 1))))

    assert add_note(sample, None) is sample
    assert add_note(add_note(sample, "a"), "b", None).extra["note"] == "a; b"


def test_sound_data_stay_sound_for_zlib():
    """A guard for the guard: the bytes above are damaged on purpose, these are not."""
    assert zlib.crc32(inflate(gzip.compress(b"abc"), 10)) == zlib.crc32(b"abc")
