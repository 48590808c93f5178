"""Decode PNG, JPEG, BMP and WebP files to images."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from crossdim.pipelines.readers import jpeg, png
from crossdim.pipelines.readers.exif import turn_upright
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.image_sample import build_image
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.reasons import format_foreign_text
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array, Sample

#: Names of the formats.
PNG, JPEG, BMP, WEBP = "png", "jpeg", "bmp", "webp"
PNG_MAGIC = png.MAGIC
JPEG_MAGIC = b"\xff\xd8\xff"
BMP_MAGIC, WEBP_MAGIC = b"BM", b"WEBP"
#: Sizes of the second header of a BMP file: BITMAPCOREHEADER, BITMAPINFOHEADER and its versions 4 and 5.
_BMP_HEADERS = tuple(struct.pack("<I", size) for size in (12, 40, 108, 124))
#: Place of the depth of a sample in a PNG.
_PNG_DEPTH = 24
ON_BLACK_NOTE = "alpha composited over black"
DEEP_COLOUR_NOTE = "16-bit colour read as 8-bit"
#: Pillow's names of the formats.
_FORMATS = {"PNG": PNG, "JPEG": JPEG, "BMP": BMP, "DIB": BMP, "WEBP": WEBP}
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")


def looks_like_bmp(head: bytes) -> bool:
    """Whether the first bytes are a BMP header: two letters alone also begin texts."""
    return head.startswith(BMP_MAGIC) and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS


def read_header(data: bytes, rules: ReadRules, *, whole: bool = True) -> HeaderInfo:
    """Read the header of a PNG, JPEG, BMP or WebP file.

    Args:
        data: the file, or its beginning.
        rules: the size guard.
        whole: whether ``data`` is all of it.

    Returns:
        Format, and shape (H, W) in pixels.

    Raises:
        EOFError: if ``data`` is a beginning without a header: colour profiles and other metadata, of any size, may precede it.
        SampleError: if there is no picture, or it is larger than the guard.
    """
    try:
        picture = _open(data, rules)
    except SampleError as error:
        if whole or error.rule != "damaged":
            raise
        raise EOFError("more bytes are needed") from error
    return HeaderInfo(format=_FORMATS[str(picture.format)], shape=(picture.height, picture.width))


def decode(item: RawItem) -> Sample:
    """Decode a PNG, JPEG, BMP or WebP file to an image, upright by its EXIF orientation.

    One bit becomes 0 and 255; palettes and CMYK become RGB; alpha is composited over black, the background of radiographs.

    Returns:
        (1, H, W) uint8 or uint16, or (3, H, W) uint8.

    Raises:
        SampleError: for damaged, cut or unknown content: a picture that is there in part is not there.
    """
    unchecked: str | None = None
    is_png = item.data.startswith(PNG_MAGIC)
    if is_png:
        png.check_chunks(item.data)
    picture = _open(item.data, item.rules)
    try:
        if is_png:
            png.load(item.data, picture)
        elif picture.format == "JPEG":
            picture, unchecked = jpeg.decode_jpeg(item.data, picture)
        else:
            picture.load()
        picture, unoriented = turn_upright(picture)
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise SampleError("damaged", f"the picture cannot be decoded to its end: {format_foreign_text(error)}") from error
    bits = item.data[_PNG_DEPTH] if is_png else 8
    array, note = _split_channels(picture, bits)
    deep = bits == 16 and array.dtype == np.uint8
    return build_image(item, array, (note, unoriented, unchecked, DEEP_COLOUR_NOTE if deep else None))


@contextlib.contextmanager
def _lift_limit() -> Iterator[None]:
    """Without Pillow's limit of pixels, which stands below ours."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _open(data: bytes, rules: ReadRules) -> Image.Image:
    try:
        with warnings.catch_warnings(), _lift_limit():  # our own guard follows
            warnings.simplefilter("ignore")  # of metadata, which is not needed
            picture = Image.open(io.BytesIO(data), formats=tuple(_FORMATS))
    except UnidentifiedImageError as error:
        raise SampleError("damaged", "the file starts as a picture does, but its header is damaged or cut") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError("damaged", f"the picture's header cannot be read: {format_foreign_text(error)}") from error
    if min(picture.size) < 1:
        raise SampleError("dimensions", f"the header says {picture.width}x{picture.height} pixels; an image has at least one")
    if (frames := getattr(picture, "n_frames", 1)) > 1 and picture.format == "WEBP":
        raise SampleError("multi_frame", f"{frames} frames of an animation; an image has one: save each as a file")
    channels = _num_channels(picture)
    shape = (picture.height, picture.width)
    rules.allow_values(math.prod(shape) * channels, shape if channels == 1 else (*shape, channels))
    if data.startswith(PNG_MAGIC) and data[_PNG_DEPTH] == 16 and picture.mode == "RGB" and "transparency" in picture.info:
        raise SampleError(
            "pixel_mode", "a transparent colour of 16 bits (tRNS) is not read, only its low bytes would be; save it with alpha"
        )
    return picture


def _num_channels(picture: Image.Image) -> int:
    """Channels that a picture has while it is read: what is not grey becomes RGB, with transparency RGBA."""
    if picture.mode in ("1", "L", *_SIXTEEN_BIT):
        return 1
    return 3 if picture.mode in ("RGB", "P") and "transparency" not in picture.info else 4


def _split_channels(picture: Image.Image, bits: int) -> tuple[Array, str | None]:
    """(C, H, W) and what was decided on the way; ``bits`` is the depth of a sample in the file."""
    mode = picture.mode
    if mode in _SIXTEEN_BIT:
        return _on_black(np.asarray(picture).astype(np.uint16)[None], picture, 1)
    if mode in ("1", "L"):
        return _on_black(np.asarray(picture.convert("L"))[None], picture, 255 // ((1 << bits) - 1) if mode == "L" else 1)
    if mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        opaque = rgba.getchannel("A").getextrema() == (255, 255)
        flat = rgba if opaque else Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
        gray = mode == "LA"
        array = np.asarray(flat.convert("RGB")).transpose(2, 0, 1)
        return np.ascontiguousarray(array[:1] if gray else array), None if opaque else ON_BLACK_NOTE
    if mode in ("RGB", "P", "CMYK"):
        return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1)), None
    raise SampleError("pixel_mode", f"pictures of mode {mode} are not read; save as 8- or 16-bit gray, or RGB")


def _on_black(array: Array, picture: Image.Image, step: int) -> tuple[Array, str | None]:
    """A grey image with its transparent value, which a PNG may name, made black; ``step`` is how far its levels lie apart."""
    level = picture.info.get("transparency")
    transparent = array == level * step if isinstance(level, int) and level else np.zeros(1, np.bool_)
    if not transparent.any():
        return array, None
    return np.where(transparent, 0, array).astype(array.dtype), ON_BLACK_NOTE
