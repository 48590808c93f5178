"""What decoders of PNG skip: checksums of pixel data, the last chunk, and whether all rows are there.

Source: the PNG specification, https://www.w3.org/TR/png-3, clauses 5 (chunks), 7 and 8 (scanlines and Adam7), 10 (compression).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from crossdim.storage_schema.errors import SampleError

MAGIC = b"\x89PNG\r\n\x1a\n"
_IHDR = struct.Struct(">IIBBBBB")
_IHDR_OFFSET = 16
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
#: Of the seven passes of Adam7: first column and row, and the steps between them.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
#: What a row holds that was not decoded: a value of 8 bits in every channel, of 16 where there are so many, and a bit.
_BLANK = {"1": 1, "I;16": 0xA5A5}
_BLANK_BYTE = 0xA5
_INFLATE_BYTES = 1 << 20


def check_chunks(data: bytes) -> None:
    """Check every chunk against its checksum, up to the last one; decoders skip this for pixel data.

    Args:
        data: the file.

    Raises:
        SampleError: rule ``checksum`` or ``truncated``.
    """
    for offset, kind, end in _chunks(data):
        if zlib.crc32(data[offset + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise SampleError("checksum", f"a chunk of the PNG, at byte {offset}, does not match its checksum")
        if kind == b"IEND":
            return
    raise SampleError("truncated", f"the PNG ends after {len(data):,} bytes without its last chunk; the file is cut")


def load(data: bytes, picture: Image.Image) -> None:
    """Decode the pixels, all of them: Pillow leaves rows blank that a sound stream of compressed data does not hold.

    Blank rows are recognised by what the memory holds before. Only where the last row looks so, and for interlaced files, is
    the stream inflated once more, to count what it holds.

    Args:
        data: the file.
        picture: as Pillow opened it; its pixels are loaded.

    Raises:
        SampleError: rule ``truncated`` if rows are missing, ``palette_colour`` for pixels whose colour the palette does not have.
    """
    width, height, *_, interlaced = _IHDR.unpack_from(data, _IHDR_OFFSET)
    blank = _BLANK.get(picture.mode, _BLANK_BYTE)
    bands = len(picture.getbands())
    memory = Image.new(picture.mode, picture.size, None)  # not filled, which would cost as much as a fifth of decoding
    memory.paste(blank if bands == 1 else (blank,) * bands, (0, height - 1, width, height))
    picture.im = memory.im
    picture.load()
    last_row = np.asarray(picture.crop((0, height - 1, width, height)))
    if interlaced or (last_row == blank).all():
        _check_rows(data)
    if picture.mode == "P":
        _check_palette(data, int(np.asarray(picture).max()))


def _check_palette(data: bytes, highest: int) -> None:
    """Decoders show pixels beyond the palette as black."""
    colours = sum((end - offset - 12) // 3 for offset, kind, end in _chunks(data) if kind == b"PLTE")
    if highest >= colours:
        raise SampleError("palette_colour", f"a pixel has colour {highest} of a palette of {colours} colours, which begin at 0")


def _check_rows(data: bytes) -> None:
    wanted = _num_bytes(data)
    held = _count_inflated_bytes(data, wanted)
    if held < wanted:
        raise SampleError(
            "truncated", f"the PNG holds {held:,} bytes of pixels; its header asks for {wanted:,}, so that rows are missing"
        )


def _chunks(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Where each chunk that is there to its end begins, its kind, and where it ends."""
    offset = len(MAGIC)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        end = offset + 12 + length
        if end > len(data):
            return
        yield offset, kind, end
        offset = end


def _num_bytes(data: bytes) -> int:
    """Bytes of all rows, each with the number of its filter."""
    width, height, depth, colour, _, _, interlaced = _IHDR.unpack_from(data, _IHDR_OFFSET)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for x, y, step_x, step_y in passes:
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * depth * _CHANNELS[colour] // 8))
    return total


def _count_inflated_bytes(data: bytes, most: int) -> int:
    """Bytes that the compressed stream of pixels holds; no more are counted than are wanted."""
    inflater, total = zlib.decompressobj(), 0
    for offset, kind, end in _chunks(data):
        rest = data[offset + 8 : end - 4] if kind == b"IDAT" else b""
        while rest and not inflater.eof and total < most:
            total += len(inflater.decompress(rest, _INFLATE_BYTES))
            rest = inflater.unconsumed_tail
    return total
