"""PNG: files that hold fewer rows than their header states, of every kind of pixel, and metadata of any size."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from crossdim.pipelines.readers import png, raster
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.storage_schema.errors import SampleError

WIDTH, HEIGHT = 21, 13
#: Colour type and depth of every kind of pixel that PNG has.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
KINDS = [(colour, depth) for colour, depths in DEPTHS.items() for depth in depths]
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _lines(colour: int, depth: int, interlaced: bool, byte: int | None) -> list[bytes]:
    """Scanlines in the order of the file, each of one byte or at random, with no filter."""
    rng = np.random.default_rng(3)
    lines = []
    for x, y, step_x, step_y in PASSES if interlaced else [(0, 0, 1, 1)]:
        columns, rows = len(range(x, WIDTH, step_x)), len(range(y, HEIGHT, step_y))
        for _ in range(rows if columns else 0):
            size = (columns * depth * CHANNELS[colour] + 7) // 8
            lines.append(b"\0" + (rng.bytes(size) if byte is None else bytes([byte]) * size))
    return lines


def _file(colour: int, depth: int, interlaced: bool, lines: list[bytes], parts: int = 1) -> bytes:
    """A PNG with sound checksums, its stream of pixels complete, whatever it holds."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced)
    palette = _chunk(b"PLTE", bytes(range(256)) * 3) if colour == 3 and depth == 8 else b""
    if colour == 3 and depth < 8:
        palette = _chunk(b"PLTE", bytes(range(3 << depth)))
    stream = zlib.compress(b"".join(lines))
    cuts = [len(stream) * n // parts for n in range(parts + 1)]
    data = b"".join(_chunk(b"IDAT", stream[a:b]) for a, b in itertools.pairwise(cuts))
    return png.MAGIC + _chunk(b"IHDR", header) + palette + data + _chunk(b"IEND", b"")


def _decode(data: bytes) -> np.ndarray:
    return raster.decode(RawItem(uri="a.png", files=(data,))).array


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_missing_rows_are_refused(colour: int, depth: int, interlaced: bool) -> None:
    """Pillow leaves them blank, but for a few files that it refuses."""
    lines = _lines(colour, depth, interlaced, None)
    _decode(_file(colour, depth, interlaced, lines, parts=3))
    for held in (lines[:-1], lines[: len(lines) // 2], lines[:1]):
        with pytest.raises(SampleError, match=r"rows are missing|image file is truncated"):
            _decode(_file(colour, depth, interlaced, held, parts=3))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
@pytest.mark.parametrize("byte", [0x00, 0xA5, 0xFF])
def test_rows_that_look_as_missing_ones_do_are_pixels(colour: int, depth: int, interlaced: bool, byte: int) -> None:
    """The whole lower half of one value, also of the one that tells missing rows."""
    lines, even = _lines(colour, depth, interlaced, None), _lines(colour, depth, interlaced, byte)
    data = _file(colour, depth, interlaced, lines[: len(lines) // 2] + even[len(lines) // 2 :])
    expected = Image.open(io.BytesIO(data))
    expected.load()
    picture = Image.open(io.BytesIO(data))
    png.load(data, picture)
    assert picture.tobytes() == expected.tobytes()
    assert _decode(data).shape[1:] == (HEIGHT, WIDTH)


def test_what_is_inflated_is_bounded() -> None:
    """A stream that goes on behind the last row is not followed."""
    lines = _lines(0, 8, True, 0)
    data = _file(0, 8, True, [*lines, bytes(1 << 28)])
    assert png._count_inflated_bytes(data, 300) <= 300 + png._INFLATE_BYTES


def _save(kind: str, image: Image.Image, metadata: bytes) -> bytes:
    """With so much metadata before the pixels."""
    buffer = io.BytesIO()
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("XML:com.adobe.xmp", metadata.decode("latin-1"))
        image.save(buffer, kind, pnginfo=text)
    else:
        profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + metadata)
        profile[:4] = struct.pack(">I", len(profile))
        image.save(buffer, kind, icc_profile=bytes(profile))
    return buffer.getvalue()


@pytest.mark.parametrize("num_bytes", [1000, 262_144, 600_000])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_metadata_before_the_pixels_may_be_long(kind: str, num_bytes: int) -> None:
    """A profile of a printer has 557 kB; the beginning of a file that is looked at first has fewer."""
    gray = Image.fromarray(np.arange(64 * 80, dtype=np.uint16).reshape(64, 80).astype(np.uint8))
    data = _save(kind, gray, np.random.default_rng(0).integers(33, 126, num_bytes, dtype=np.uint8).tobytes())
    found = probe(f"a.{kind.lower()}", len(data), lambda length: data[:length], ReadRules())
    assert isinstance(found, HeaderInfo)
    assert (found.format, found.shape) == (kind.lower(), (64, 80))


def test_the_guard_of_pixels_is_ours() -> None:
    """Pillow refuses from 178,956,970 pixels on."""
    header = struct.pack(">IIBBBBB", 1 << 14, (1 << 14) - 1, 1, 0, 0, 0, 0)
    data = png.MAGIC + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")
    assert raster.read_header(data, ReadRules()).shape == ((1 << 14) - 1, 1 << 14)
    with pytest.raises(SampleError, match=r"read.max_pixels is 1,000"):
        raster.read_header(data, ReadRules(max_pixels=1000))
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_pixel_beyond_the_palette_is_refused(depth: int, interlaced: bool) -> None:
    """Decoders show it as black. One colour fewer than the depth allows, and a pixel that names the last."""
    colours = (1 << depth) - 1
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, 3, 0, 0, interlaced)
    palette = (bytes(range(256)) * 3)[: 3 * colours]

    def build(byte: int) -> bytes:
        stream = zlib.compress(b"".join(_lines(3, depth, interlaced, byte)))
        parts = {b"IHDR": header, b"PLTE": palette, b"IDAT": stream, b"IEND": b""}
        return png.MAGIC + b"".join(_chunk(kind, part) for kind, part in parts.items())

    assert _decode(build(0)).shape == (3, HEIGHT, WIDTH)
    with pytest.raises(SampleError, match=f"colour {colours} of a palette of {colours} colours") as caught:
        _decode(build(255))
    assert caught.value.rule == "palette_colour"
