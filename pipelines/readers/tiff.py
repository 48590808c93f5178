"""Decode TIFF and BigTIFF files of one page to images; those of several are volumes, see :mod:`.tiff_volume`.

A header may stand anywhere in a file, so the file is read as a whole for it.
"""

from __future__ import annotations

import math

import numpy as np
import tifffile

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.image_sample import build_image
from crossdim.pipelines.readers.raster import DEEP_COLOUR_NOTE, ON_BLACK_NOTE
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.signatures import TIFF_MAGIC, Unread
from crossdim.pipelines.readers.tiff_pages import GRAY, check_segments, find_pages, open_tiff, read_pixels
from crossdim.pipelines.readers.tiff_volume import TIFF_VOLUME, is_volume, parse_volume
from crossdim.pipelines.readers.volume_file import describe_header
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
#: Channels that pixels may have, with alpha.
_CHANNELS = {
    **dict.fromkeys(GRAY, (1, 2)),
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
        Format, and shape (H, W) in pixels of one page, or (D, H, W) of several; the name of its kind for a whole-slide image.

    Raises:
        EOFError: if ``data`` is a beginning.
        SampleError: if the file is damaged, has pages that make no volume, pixels that are not read, or more of them than the
            guard allows.
    """
    if not whole:
        raise EOFError("more bytes are needed")
    with open_tiff(data) as file:
        for attribute, name in _WHOLE_SLIDES.items():
            if getattr(file, attribute):
                return Unread(format=name, is_image=True)
        if is_volume(file):
            return describe_header(parse_volume(file, rules), TIFF_VOLUME)
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
    with open_tiff(item.data) as file:
        page = _find_page(file, item.rules)
        check_segments(page, len(item.data))
        array, notes = _convert(_turn(read_pixels(page), page), page)
    return build_image(item, array, notes)


def _find_page(file: tifffile.TiffFile, rules: ReadRules) -> tifffile.TiffPage:
    """The only page, checked."""
    pages = find_pages(file)
    if len(pages) > 1:
        raise SampleError("multi_frame", f"{len(pages)} pages, of which an image has one")
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
    is_gray = page.photometric in GRAY
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
