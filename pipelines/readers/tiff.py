"""Decode TIFF and BigTIFF files of one page to images. tifffile reads them; imagecodecs is needed for most compressions.

A header may stand anywhere in a file, so the file is read as a whole for it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import tifffile

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.image_sample import build_image
from crossdim.pipelines.readers.raster import DEEP_COLOUR_NOTE, ON_BLACK_NOTE
from crossdim.pipelines.readers.raw import RawItem, ReadRules, check_expansion
from crossdim.pipelines.readers.signatures import TIFF_MAGIC, Unread
from crossdim.pipelines.reasons import format_foreign_text
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array, Sample

#: Name of the format.
TIFF = "tiff"
MAGIC = TIFF_MAGIC
#: Whole-slide images, as tifffile tells them, and what they are called among the formats that are not read.
_WHOLE_SLIDES = {
    "is_svs": "SVS",
    "is_ndpi": "NDPI",
    "is_scn": "SCN",
    "is_qpi": "QPTIFF",
    "is_bif": "BIF",
    "is_philips": "Philips TIFF",
}
#: What tifffile, and codecs that it calls, raise for damaged files.
_ERRORS = (
    tifffile.TiffFileError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    RuntimeError,
    OSError,
    struct.error,
    zlib.error,
)
_GRAY = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK)
#: Channels that pixels may have, with alpha.
_CHANNELS = {
    **dict.fromkeys(_GRAY, (1, 2)),
    tifffile.PHOTOMETRIC.PALETTE: (1,),
    **dict.fromkeys((tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR), (3, 4)),
}
_ORIENTATION_TAG = 274


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a TIFF file."""
    return head.startswith(MAGIC)


def read_header(data: bytes, rules: ReadRules, *, whole: bool = True) -> HeaderInfo | Unread:
    """Read the header of a TIFF file.

    Args:
        data: the file, or its beginning.
        rules: the size guard.
        whole: whether ``data`` is all of it.

    Returns:
        Format, and shape (H, W) in pixels; the name of its kind for a whole-slide image.

    Raises:
        EOFError: if ``data`` is a beginning.
        SampleError: if the file is damaged, has several pages, pixels that are not read, or more of them than the guard allows.
    """
    if not whole:
        raise EOFError("more bytes are needed")
    with _open(data) as file:
        for attribute, name in _WHOLE_SLIDES.items():
            if getattr(file, attribute):
                return Unread(format=name, is_image=True)
        page = _find_page(file, rules)
        return HeaderInfo(format=TIFF, shape=(page.imagelength, page.imagewidth))


def decode(item: RawItem) -> Sample:
    """Decode a TIFF file to an image, upright by its orientation.

    One bit becomes 0 and 255; white-is-zero is inverted; palettes become RGB; alpha is composited over black.

    Returns:
        (1, H, W) uint8 or uint16, or (3, H, W) uint8.

    Raises:
        SampleError: for damaged, cut or unknown content.
    """
    with _open(item.data) as file:
        page = _find_page(file, item.rules)
        _check_segments(page, len(item.data))
        array, notes = _convert(_turn(_read_pixels(page), page), page)
    return build_image(item, array, notes)


@contextlib.contextmanager
def _open(data: bytes) -> Iterator[tifffile.TiffFile]:
    """A file. tifffile checks no tag's type or count, so whatever reading its header raises is a damaged header."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it could not read shows in what is missing
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            yield file
    except _ERRORS as error:
        raise SampleError("damaged", f"the TIFF header is damaged: {format_foreign_text(error)}") from error


def _find_page(file: tifffile.TiffFile, rules: ReadRules) -> tifffile.TiffPage:
    """The only page, checked; reduced copies and masks of it do not count."""
    pages = [page.aspage() for page in file.pages]
    pages = [page for page in pages if not (page.is_reduced or page.is_mask)] or pages[:1]
    if not pages:
        raise SampleError("damaged", "the TIFF file has no page")
    if len(pages) > 1 or pages[0].imagedepth != 1:
        raise SampleError("multi_frame", f"{len(pages)} pages; one is read: save each as a file, or a volume as NIfTI or NRRD")
    _check_page(pages[0], rules)
    return pages[0]


def _check_page(page: tifffile.TiffPage, rules: ReadRules) -> None:
    height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
    if min(height, width, channels) < 1:
        raise SampleError("dimensions", f"the header says {width}x{height} pixels; an image has at least one")
    rules.allow_values(math.prod((height, width, channels)), (height, width, channels))
    is_unsigned = page.dtype is not None and page.dtype.kind in "ub" and page.dtype.itemsize <= 2
    if not is_unsigned or channels not in _CHANNELS.get(tifffile.PHOTOMETRIC(page.photometric), ()):
        raise SampleError("pixel_mode", "pixels are not gray, RGB or of a palette, of 1 to 16 bits; save them as such")
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is None:
        raise SampleError("palette_colour", "the palette that the header promises is not there")


def _check_segments(page: tifffile.TiffPage, num_bytes: int) -> None:
    """All strips or tiles must be there: tifffile gives zeros for those that are not."""
    expected = math.prod(page.chunked) if page.chunked else 1
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(segments) < expected or any(size < 1 or start < 1 for start, size in segments):
        raise SampleError("truncated", f"the header names {len(segments)} strips or tiles of pixels; the image takes {expected}")
    if any(start + size > num_bytes for start, size in segments):
        raise SampleError("truncated", f"the file has {num_bytes:,} bytes, and strips or tiles that end behind them; it is cut")
    check_expansion(math.prod((page.imagelength, page.imagewidth, page.samplesperpixel)), num_bytes)


def _read_pixels(page: tifffile.TiffPage) -> Array:
    """(H, W, C), as they are stored."""
    try:
        pixels = page.asarray()
    except (*_ERRORS, ImportError) as error:
        if isinstance(error, ImportError) or "imagecodecs" in str(error):
            name = getattr(page.compression, "name", "of the file")
            raise SampleError(
                "codec", f"no codec for the compression {name} is installed; pip install 'crossdim[tiff]'"
            ) from error
        raise SampleError("damaged", f"the pixels cannot be decoded to their end: {format_foreign_text(error)}") from error
    if pixels.ndim == 2:
        return pixels[:, :, None]
    return pixels.transpose(1, 2, 0) if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else pixels


def _turn(pixels_HWC: Array, page: tifffile.TiffPage) -> Array:
    """Upright by the tag Orientation, whose values are those of EXIF."""
    tag = page.tags.get(_ORIENTATION_TAG)
    value = tag.value if tag is not None else 1
    if value in (5, 6, 7, 8):
        pixels_HWC = pixels_HWC.transpose(1, 0, 2)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(value, ())
    return np.flip(pixels_HWC, flips)


def _convert(pixels_HWC: Array, page: tifffile.TiffPage) -> tuple[Array, tuple[str | None, ...]]:
    """(C, H, W) in the forms of PNG files, and what was decided on the way."""
    bits = page.bitspersample
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        return _to_eight_bits(np.moveaxis(np.take(page.colormap, pixels_HWC[:, :, 0], axis=1), 0, 2)), ()
    is_gray = page.photometric in _GRAY
    num_colours = 1 if is_gray else 3
    colours, alpha = pixels_HWC[:, :, :num_colours], pixels_HWC[:, :, num_colours:]
    if colours.dtype == np.bool_ or bits < 8:
        colours = colours.astype(np.uint8) * np.uint8(255 // ((1 << bits) - 1))
        bits = 8
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        colours = np.array((1 << bits) - 1, colours.dtype) - colours
    notes: list[str | None] = []
    if alpha.size and (alpha < (1 << page.bitspersample) - 1).any():
        opacity = alpha / float((1 << page.bitspersample) - 1)
        is_premultiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
        colours = colours if is_premultiplied else np.rint(colours * opacity).astype(colours.dtype)
        notes.append(ON_BLACK_NOTE)
    if is_gray:
        return np.ascontiguousarray(colours.transpose(2, 0, 1)), tuple(notes)
    if colours.dtype == np.uint16:
        return _to_eight_bits(colours), (*notes, DEEP_COLOUR_NOTE)
    return np.ascontiguousarray(colours.transpose(2, 0, 1)), tuple(notes)


def _to_eight_bits(colours_HWC: Array) -> Array:
    return np.ascontiguousarray((colours_HWC >> 8).astype(np.uint8).transpose(2, 0, 1))
