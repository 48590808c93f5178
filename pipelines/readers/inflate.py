"""Gzip and zlib, read to the end: a checksum protects only if it is reached.

nibabel stops reading at the last voxel, before the trailer, and so returns damaged voxels without an error. Here every
member is inflated to its end, where zlib compares length and CRC.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from crossdim.pipelines.reasons import format_foreign_text
from crossdim.storage_schema.errors import SampleError

GZIP_MAGIC = b"\x1f\x8b"
#: What zlib calls wbits: the largest window, with the header and the checksum of gzip or of zlib.
GZIP_WINDOW, ZLIB_WINDOW = 31, 15
_STEP_BYTES = 1 << 20


def inflate_head(data: bytes, num_bytes: int) -> bytes:
    """Inflate the beginning of a gzip member.

    Args:
        data: the file, or its beginning.
        num_bytes: of content that are wanted.

    Returns:
        ``num_bytes`` bytes, or as many as there are.

    Raises:
        SampleError: rule ``gzip`` if the stream is damaged before that.
    """
    try:
        return zlib.decompressobj(GZIP_WINDOW).decompress(data, num_bytes)
    except zlib.error as error:
        raise SampleError("gzip", f"the gzip stream is damaged at its start: {format_foreign_text(error)}") from error


def is_cut(data: bytes) -> bool:
    """Whether the first gzip member of a complete file ends before its end."""
    member = zlib.decompressobj(GZIP_WINDOW)
    member.decompress(data, _STEP_BYTES)
    return not member.eof and not member.unconsumed_tail


def inflate(data: bytes, max_bytes: int) -> bytearray:
    """Inflate all members of a gzip file, each checked to its end.

    Args:
        data: the file.
        max_bytes: what the header inside promises; more is refused before it is held in memory.

    Returns:
        The content.

    Raises:
        SampleError: rule ``gzip`` for damage, ``truncated`` for a stream without its end, ``trailing_bytes`` for what
            follows the last member, ``too_long`` for more content than promised.
    """
    return inflate_start(data, max_bytes, max_bytes)[0]


def inflate_start(
    data: bytes | memoryview, wanted_bytes: int, max_bytes: int, window_bits: int = GZIP_WINDOW
) -> tuple[bytearray, int]:
    """Inflate a stream to its end, and keep only the first bytes.

    Args:
        data: members of gzip, or one stream of zlib.
        wanted_bytes: how many are kept.
        max_bytes: what the header inside promises.
        window_bits: :data:`GZIP_WINDOW` or :data:`ZLIB_WINDOW`.

    Returns:
        The first bytes, and the number of bytes in all.

    Raises:
        SampleError: as :func:`inflate`.
    """
    held, total = bytearray(), 0
    for part in _inflate_parts(data, window_bits):
        total += len(part)
        if total > max_bytes:
            raise SampleError(
                "too_long", f"the {_name(window_bits)} stream holds more than the {max_bytes:,} bytes that its header promises"
            )
        held += part[: wanted_bytes - len(held)]
    return held, total


def iterate_inflated(data: bytes | memoryview, window_bits: int) -> Iterator[bytes]:
    """Inflate a stream in steps, as far as it is sound.

    Args:
        data: members of gzip, or one stream of zlib.
        window_bits: :data:`GZIP_WINDOW` or :data:`ZLIB_WINDOW`.

    Yields:
        Content, up to a MB at a time.
    """
    try:
        yield from _inflate_parts(data, window_bits)
    except SampleError:
        return


def _inflate_parts(data: bytes | memoryview, window_bits: int) -> Iterator[bytes]:
    """The content, in order, of all members; each is compared with its checksum."""
    name = _name(window_bits)
    total = start = 0
    while start == 0 or (window_bits == GZIP_WINDOW and data[start : start + len(GZIP_MAGIC)] == GZIP_MAGIC):
        member = zlib.decompressobj(window_bits)
        while not member.eof:
            # In small steps: zlib copies what it was given and has not used yet.
            given = member.unconsumed_tail or data[start : start + _STEP_BYTES]
            start += 0 if member.unconsumed_tail else len(given)
            try:
                part = member.decompress(given, _STEP_BYTES)
            except zlib.error as error:
                raise SampleError("gzip", f"the {name} stream is damaged: {format_foreign_text(error)}") from error
            if not given and not part and not member.eof:
                raise SampleError(
                    "truncated", f"the {name} stream ends after {total:,} bytes without its checksum; the file is cut"
                )
            total += len(part)
            yield part
        start -= len(member.unused_data)
    if bytes(data[start:]).strip(b"\0"):
        raise SampleError("trailing_bytes", f"{len(data) - start:,} bytes follow the {name} stream; they belong to nothing")


def _name(window_bits: int) -> str:
    return "gzip" if window_bits == GZIP_WINDOW else "zlib"
