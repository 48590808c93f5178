"""Headers of compressed images, compared with the DICOM header before a codec reads them.

A codec allocates what its own header asks for, and decodes what is left of a stream that was cut. So the frame header must state
the same as Rows, Columns, SamplesPerPixel and BitsAllocated, and every segment must be inside the stream, up to the end marker.

Sources: JPEG, ITU-T T.81 annex B; JPEG-LS, T.87 annex C; JPEG 2000, T.800 annexes A and I; RLE, DICOM PS3.5 annex G.
"""

from __future__ import annotations

import io
import itertools
import re
import struct
from dataclasses import dataclass

import pydicom.uid
from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets
from pydicom.uid import UID

from crossdim.storage_schema.errors import SampleError

#: SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
#: Markers without a length: TEM and the restarts.
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
#: The next marker behind entropy-coded data; JPEG stuffs a zero byte behind 0xFF, JPEG-LS a zero bit.
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_MARKER_LS = re.compile(rb"\xff+([\x80-\xcf\xd8-\xfe])")
_J2K_START = b"\xff\x4f\xff\x51"
_J2K_SOT, _J2K_EOC = 0xFF90, 0xFFD9
_MAX_TILES = 65535
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_SIZ = struct.Struct(">HHIIIIIIIIH")
_RLE_HEADER = struct.Struct("<16I")
JPEG_2000 = (
    pydicom.uid.JPEG2000Lossless,
    pydicom.uid.JPEG2000,
    pydicom.uid.HTJ2KLossless,
    pydicom.uid.HTJ2KLosslessRPCL,
    pydicom.uid.HTJ2K,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameHeader:
    """The sizes that a compressed frame states."""

    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool = False  # what JPEG 2000 alone states

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns} pixels of {self.samples} x {self.bits} bits"


def check_code_streams(pixel_data: bytes, syntax: UID, promised: FrameHeader, num_frames: int = 1) -> list[FrameHeader]:
    """Compare the code streams of a file with what the DICOM header promises.

    Args:
        pixel_data: the encapsulated PixelData.
        syntax: its transfer syntax.
        promised: Rows, Columns, SamplesPerPixel and BitsAllocated.
        num_frames: NumberOfFrames.

    Returns:
        What the code stream of each frame states; of RLE, which states nothing, what was promised.

    Raises:
        SampleError: rule ``code_stream`` for a header that cannot be read, says something else or leads out of the stream;
            ``frame_count`` for more frames, or fewer, than promised.
    """
    return [_check_frame(frame, syntax, promised) for frame in _extract_frames(pixel_data, syntax, num_frames)]


def _check_frame(frame: bytes, syntax: UID, promised: FrameHeader) -> FrameHeader:
    try:
        if syntax == pydicom.uid.RLELossless:
            _check_rle(frame, promised)
            return promised
        found = _parse_jpeg_2000(frame) if syntax in JPEG_2000 else _parse_jpeg(frame)
    except (struct.error, IndexError) as error:
        raise _build_error("ends inside a header") from error
    same = (found.rows, found.columns, found.samples) == (promised.rows, promised.columns, promised.samples)
    if not same or not 0 < found.bits <= promised.bits:
        raise _build_error(f"holds {found}; the DICOM header says {promised}")
    return found


def _build_error(how: str) -> SampleError:
    return SampleError("code_stream", f"the compressed image {how}; the file is damaged, export it again")


def _extract_frames(pixel_data: bytes, syntax: UID, num_frames: int) -> list[bytes]:
    buffer = io.BytesIO(pixel_data)
    offsets = parse_basic_offsets(buffer)  # and the position behind them, where fragments begin
    fragments = list(generate_fragments(buffer))
    # A frame may come in several fragments, but for RLE, where a fragment is a frame.
    frames = max(len(offsets), len(fragments) if syntax == pydicom.uid.RLELossless or num_frames > 1 else 1)
    if not fragments or (frames != num_frames and (num_frames == 1 or len(offsets) != num_frames)):
        wanted = "one" if num_frames == 1 else num_frames
        raise SampleError("frame_count", f"PixelData holds {frames if fragments else 0} frames; the header says {wanted}")
    if num_frames == 1:
        return [fragments[0] if len(fragments) == 1 else b"".join(fragments)]
    return list(generate_frames(pixel_data, number_of_frames=num_frames))


def _parse_jpeg(stream: bytes) -> FrameHeader:
    """Parse the frame header of a JPEG or JPEG-LS stream, after checking every segment up to the end marker."""
    if stream[:2] != b"\xff\xd8":
        raise _build_error("does not start as JPEG does")
    header: FrameHeader | None = None
    offset = 2
    pattern = _MARKER
    while True:
        found = pattern.search(stream, offset)
        if found is None:
            raise _build_error("ends without its end marker; it is cut")
        marker, offset = found[1][0], found.end()
        if marker == _EOI:
            break
        if marker in _BARE:
            continue
        (length,) = struct.unpack_from(">H", stream, offset)
        if marker == _SOI or length < 2 or offset + length > len(stream):
            raise _build_error(f"has a segment 0x{marker:02x} that leads out of it")
        if marker in _FRAMES:
            if header is not None:
                raise _build_error("has more than one frame header")
            bits, rows, columns, samples = struct.unpack_from(">BHHB", stream, offset + 2)
            header = FrameHeader(rows=rows, columns=columns, samples=samples, bits=bits)
            pattern = _MARKER_LS if marker == 0xF7 else _MARKER
        if marker == _SOS and header is None:
            raise _build_error("has no frame header before its scan")
        offset += length
    if header is None:
        raise _build_error("has no frame header")
    return header


def _parse_jpeg_2000(stream: bytes) -> FrameHeader:
    """Parse the SIZ marker of a JPEG 2000 code stream, after checking every tile part up to the end marker."""
    if stream.startswith(_JP2_SIGNATURE):
        stream = _extract_code_stream(stream)
    if not stream.startswith(_J2K_START):
        raise _build_error("does not start as JPEG 2000 does")
    length, _, x_end, y_end, x, y, tile_x, tile_y, tile_left, tile_top, samples = _SIZ.unpack_from(stream, 4)
    if length != 38 + 3 * samples or not samples or not (tile_x and tile_y):
        raise _build_error("has a size header that contradicts itself")
    depths = {stream[42 + 3 * component : 45 + 3 * component] for component in range(samples)}
    if len(depths) != 1 or (depth := depths.pop())[1:] != b"\x01\x01":
        raise _build_error("has components of several sizes or depths")
    tiles = -(-(x_end - tile_left) // tile_x) * -(-(y_end - tile_top) // tile_y)
    if not 0 < tiles <= _MAX_TILES:
        raise _build_error(f"is cut into {tiles} tiles; a code stream has 1 to {_MAX_TILES}")
    _check_tile_parts(stream, 4 + length, tiles)
    return FrameHeader(rows=y_end - y, columns=x_end - x, samples=samples, bits=(depth[0] & 0x7F) + 1, signed=depth[0] > 0x7F)


def _check_tile_parts(stream: bytes, offset: int, tiles: int) -> None:
    """Follow the main header and every tile part to the end marker: decoders fill tiles that are absent with one grey value."""
    parts: dict[int, set[int]] = {}
    stated: dict[int, int] = {}
    while True:
        (marker,) = struct.unpack_from(">H", stream, offset)
        if marker == _J2K_EOC:
            _check_all_tiles(parts, stated, tiles)
            return
        (length,) = struct.unpack_from(">H", stream, offset + 2)
        if marker != _J2K_SOT:  # a segment of the main header
            if marker < 0xFF01 or length < 2:
                raise _build_error("has a main header that cannot be read")
            offset += 2 + length
            continue
        tile, part_length, part, num_parts = struct.unpack_from(">HIBB", stream, offset + 4)
        if length != 10 or tile >= tiles or not (part_length == 0 or part_length >= 14):
            raise _build_error("has a tile part that cannot be read")
        if part in parts.setdefault(tile, set()):
            raise _build_error(f"has part {part} of tile {tile} twice")
        parts[tile].add(part)
        stated[tile] = max(stated.get(tile, 0), num_parts)
        # Length 0: the last tile part goes on to the end marker.
        offset = offset + part_length if part_length else stream.rfind(b"\xff\xd9")
        if not 0 < offset < len(stream):
            raise _build_error("ends inside a tile; it is cut")


def _check_all_tiles(parts: dict[int, set[int]], stated: dict[int, int], tiles: int) -> None:
    """Every tile of the grid, and every part of a tile: numbered from 0, as many as any of them states (0: not stated)."""
    if len(parts) != tiles:
        raise _build_error(f"holds {len(parts)} of its {tiles} tiles; it is cut")
    for tile, numbers in parts.items():
        wanted = max(stated[tile], max(numbers) + 1)
        if len(numbers) != wanted:
            raise _build_error(f"holds {len(numbers)} of {wanted} parts of tile {tile}; it is cut")


def _extract_code_stream(stream: bytes) -> bytes:
    """Extract the code stream from a JP2 file, which DICOM does not allow and some writers store."""
    offset = 0
    while True:
        length, kind = struct.unpack_from(">I4s", stream, offset)
        start = offset + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", stream, start)
            start += 8
        end = offset + length if length else len(stream)
        if end < start or end > len(stream):
            raise _build_error("has a JP2 box that leads out of it")
        if kind == b"jp2c":
            return stream[start:end]
        offset = end


def _check_rle(frame: bytes, promised: FrameHeader) -> None:
    segments, *offsets = _RLE_HEADER.unpack_from(frame)
    wanted = promised.samples * -(-promised.bits // 8)
    if segments != wanted:
        raise _build_error(f"holds {segments} RLE segments; {promised} need {wanted}")
    bounds = [*offsets[:segments], len(frame)]
    if bounds[0] != _RLE_HEADER.size or any(start >= end for start, end in itertools.pairwise(bounds)):
        raise _build_error("has RLE segments that do not follow one another inside it")
    pixels = promised.rows * promised.columns
    for start, end in itertools.pairwise(bounds):
        held = _rle_length(frame[start:end])
        if not 0 <= held - pixels < smallest_excess(promised.rows, promised.columns):
            raise _build_error(
                f"holds an RLE segment of {held:,} values; {promised.rows}x{promised.columns} pixels are {pixels:,}"
            )


#: By the first byte of a run of PackBits: bytes that it unpacks to, and from its beginning to that of the next run.
_RLE_UNPACKED = [*range(1, 129), 0, *range(128, 1, -1)]
_RLE_STEP = [*range(2, 130), 1, *[2] * 127]


def _rle_length(segment: bytes) -> int:
    """Bytes that a segment of PackBits unpacks to."""
    offset, length, end, head = 0, 0, len(segment), 0
    while offset < end:
        head = segment[offset]
        length += _RLE_UNPACKED[head]
        offset += _RLE_STEP[head]
    if offset > end:  # the last run is cut: one that repeats a byte lacks it, and the other has some of its bytes
        length -= _RLE_UNPACKED[head] if head > 0x80 else offset - end
    return length


def smallest_excess(rows: int, columns: int) -> int:
    """The least number of extra pixels in an image with more rows or columns than its header states.

    Fewer extra pixels may be padding, which some writers leave after the pixels.

    Args:
        rows: of the header.
        columns: of the header.

    Returns:
        Number of pixels: one row or one column.
    """
    return min(rows, columns)
