"""DICOM files with a deflated dataset, inflated no further than their header promises."""

from __future__ import annotations

import io
import math
import zlib

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from crossdim.pipelines.reasons import format_foreign_text
from crossdim.storage_schema.errors import SampleError

#: The first element of group 0002, and where a file's meta information has its transfer syntax at the latest.
_META = 132
_META_BYTES = 8192
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1"
#: Value representations whose length has four bytes.
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
#: Of everything but pixels; ours.
MAX_HEADER_BYTES = 64 << 20
_PIXEL_GROUP = 0x7FE0


def inflate_dataset(data: bytes, *, whole: bool) -> bytes:
    """Inflate a DICOM file with a deflated dataset to the same file in Explicit VR Little Endian.

    Args:
        data: the file, or its beginning.
        whole: whether pixels are wanted; otherwise the header is inflated, as far as ``data`` has it.

    Returns:
        The inflated file; any other file as it is.

    Raises:
        SampleError: rule ``deflate`` for damage, ``truncated`` for a stream without its end, ``too_long`` for more content
            than the header promises.
    """
    start = data.find(_DEFLATED, _META, _META_BYTES)
    if start < 0 or data[128:_META] != b"DICM":
        return data
    end = _end_of_meta(data)
    meta = data[:start] + _EXPLICIT.ljust(len(_DEFLATED), b"\0") + data[start + len(_DEFLATED) : end]
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    head = _step(stream, data[end:], MAX_HEADER_BYTES)
    if len(head) == MAX_HEADER_BYTES and not _find_pixels(meta + head)[1]:
        raise SampleError("too_long", f"the deflated dataset has more than {MAX_HEADER_BYTES:,} bytes before its pixels")
    if not whole or stream.eof:
        return meta + head
    rest = _step(stream, stream.unconsumed_tail, _count_promised_bytes(meta + head))
    if stream.unconsumed_tail:
        raise SampleError("too_long", "the deflated dataset holds more than Rows x Columns and its other elements promise")
    if not stream.eof:
        raise SampleError("truncated", "the deflated dataset ends before its last element; the file is cut")
    return meta + head + rest


def _end_of_meta(data: bytes) -> int:
    offset = _META
    while data[offset : offset + 2] == b"\x02\0":
        long = data[offset + 4 : offset + 6] in _LONG
        at, size = (offset + 8, 4) if long else (offset + 6, 2)
        offset = at + size + int.from_bytes(data[at : at + size], "little")
    return offset


def _step(stream: zlib._Decompress, data: bytes, max_bytes: int) -> bytes:
    try:
        return stream.decompress(data, max(max_bytes, 1))
    except zlib.error as error:
        raise SampleError("deflate", f"the deflated dataset is damaged: {format_foreign_text(error)}") from error


def _find_pixels(head: bytes) -> tuple[Dataset, bool]:
    """What stands before the pixels, and whether they follow."""
    found: list[BaseTag] = []

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        if tag.group == _PIXEL_GROUP:
            found.append(tag)
        return bool(found)

    return read_partial(io.BytesIO(head), stop_when=at_pixels), bool(found)


def _count_promised_bytes(head: bytes) -> int:
    """Bytes of pixels that the header promises."""
    header, _ = _find_pixels(head)
    names = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated")
    return math.prod(int(header.get(name) or 1) for name in names) // 8
