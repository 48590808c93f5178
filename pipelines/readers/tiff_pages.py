"""The pages of TIFF and BigTIFF files, which tifffile reads; imagecodecs is needed for most compressions."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import struct
import zlib
from collections.abc import Iterator

import tifffile

from crossdim.pipelines.readers.raw import check_expansion
from crossdim.pipelines.reasons import format_foreign_text
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array

#: What tifffile, and codecs that it calls, raise for damaged files.
ERRORS = (
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
#: Version number of BigTIFF.
BIG_TIFF = 43
#: Photometric interpretations of grey pixels.
GRAY = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK)


@contextlib.contextmanager
def open_tiff(data: bytes) -> Iterator[tifffile.TiffFile]:
    """Open a file.

    tifffile checks no tag's type or count, so whatever reading its header raises is a damaged header.

    Args:
        data: the file.

    Yields:
        The file.

    Raises:
        SampleError: rule ``damaged``, or ``truncated`` for a file that ends before its last page.
    """
    _check_chain(data)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it could not read shows in what is missing
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            yield file
    except ERRORS as error:
        raise SampleError("damaged", f"the TIFF header is damaged: {format_foreign_text(error)}") from error


def _check_chain(data: bytes) -> None:
    """Check that every page is there: tifffile leaves out those behind the end of a file without a word.

    A page is a directory: a count of entries, the entries, and the place of the next directory, 0 behind the last one.
    """
    order = "<" if data[:2] == b"II" else ">"
    try:
        is_big = struct.unpack_from(order + "H", data, 2)[0] == BIG_TIFF
        (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        count, entry, place = ("Q", 20, "Q") if is_big else ("H", 12, "I")
        seen = set[int]()
        while start:
            if start in seen:
                raise SampleError("damaged", f"page {len(seen) + 1} of the TIFF file is one of the pages before it")
            seen.add(start)
            (entries,) = struct.unpack_from(order + count, data, start)
            (start,) = struct.unpack_from(order + place, data, start + struct.calcsize(count) + entries * entry)
    except struct.error as error:
        raise SampleError(
            "truncated", f"the file has {len(data):,} bytes, and ends before its page {len(seen) if seen else 1}"
        ) from error


def find_pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Find the pages of a file; reduced copies and masks of them do not count.

    Raises:
        SampleError: rule ``damaged`` if there is none, ``multi_frame`` if pages are volumes.
    """
    every = [page.aspage() for page in file.pages]
    pages = [page for page in every if not (page.is_reduced or page.is_mask)] or every[:1]
    if not pages:
        raise SampleError("damaged", "the TIFF file has no page")
    if any(page.imagedepth != 1 for page in pages):
        raise SampleError("multi_frame", "pages are volumes (ImageDepth); save the volume as NIfTI or NRRD")
    return pages


def check_segments(page: tifffile.TiffPage, num_bytes: int) -> None:
    """Check that all strips or tiles of a page are there: tifffile gives zeros for those that are not.

    Args:
        page: of a file.
        num_bytes: of the file.

    Raises:
        SampleError: rule ``truncated``, or one of too much expansion.
    """
    expected = math.prod(page.chunked) if page.chunked else 1
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(segments) < expected or any(size < 1 or start < 1 for start, size in segments):
        raise SampleError("truncated", f"the header names {len(segments)} strips or tiles of pixels; the image takes {expected}")
    if any(start + size > num_bytes for start, size in segments):
        raise SampleError("truncated", f"the file has {num_bytes:,} bytes, and strips or tiles that end behind them; it is cut")
    check_expansion(math.prod((page.imagelength, page.imagewidth, page.samplesperpixel)), num_bytes)


def read_pixels(page: tifffile.TiffPage) -> Array:
    """Read the pixels of a page as they are stored, (H, W, C).

    Raises:
        SampleError: rule ``codec`` or ``damaged``.
    """
    try:
        pixels = page.asarray()
    except (*ERRORS, ImportError) as error:
        if isinstance(error, ImportError) or "imagecodecs" in str(error):
            name = getattr(page.compression, "name", "of the file")
            raise SampleError(
                "codec", f"no codec for the compression {name} is installed; pip install 'crossdim[tiff]'"
            ) from error
        raise SampleError("damaged", f"the pixels cannot be decoded to their end: {format_foreign_text(error)}") from error
    if pixels.ndim == 2:
        return pixels[:, :, None]
    return pixels.transpose(1, 2, 0) if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else pixels
