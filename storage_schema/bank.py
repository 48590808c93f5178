"""The superpatch bank: one sharded Zarr v3 array in which one sample is one contiguous range of bytes.

Array (N, S, S, S); inner chunk (1, S, S, S), so a superpatch is one range; shard (P, S, S, S), so one task writes one
object and nobody rewrites another's. Positions that hold no sample are absent chunks: 16 bytes of index each, or no object.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.shards import Extent

#: Compressor of the inner chunks, in the words of the Zarr v3 specification.
BLOSC = {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle"}
DTYPE = np.dtype("<i2")
#: Air in stored values, and the fill value of the array: stages shift intensities so that their low end is 0.
AIR = 0
DIMENSION_NAMES = ("n", "z", "y", "x")
CRC_BYTES = 4
_ABSENT = np.uint64(2**64 - 1)
_BLOSC_HEADER = struct.Struct("<BBBBIII")
#: No stored superpatch is shorter; a run of zeros, read as an index, says 0.
LEAST_CHUNK_BYTES = _BLOSC_HEADER.size + CRC_BYTES
#: Blosc's own limits: the largest buffer that it takes, and by how much what it cannot compress becomes longer.
MAX_CHUNK_BYTES, BLOSC_OVERHEAD_BYTES = 2**31 - 1 - _BLOSC_HEADER.size, _BLOSC_HEADER.size


def bank_path(source: str, spacing: str) -> str:
    """Path of a bank inside a dataset; all superpatches of a bank have one spacing.

    Args:
        source: name of the recipe that wrote the bank.
        spacing: the spacing as text, such as ``1mm``.

    Returns:
        ``superpatches/<source>-<spacing>.zarr``.
    """
    return f"superpatches/{source}-{spacing}.zarr"


@dataclass(frozen=True, kw_only=True, slots=True)
class BankLayout:
    """Shapes of a bank."""

    side: int
    patches_per_shard: int = 32

    @property
    def chunk_shape(self) -> tuple[int, int, int, int]:
        """(1, S, S, S): one superpatch."""
        return 1, self.side, self.side, self.side

    @property
    def shard_shape(self) -> tuple[int, int, int, int]:
        """(P, S, S, S): one object."""
        return self.patches_per_shard, self.side, self.side, self.side

    def array_shape(self, num_shards: int) -> tuple[int, int, int, int]:
        """(N, S, S, S) of a bank that has space for ``num_shards`` objects."""
        return num_shards * self.patches_per_shard, self.side, self.side, self.side

    @staticmethod
    def shard_object(number: int) -> str:
        """Path of shard ``number`` inside the array, in Zarr's default chunk-key encoding."""
        return f"c/{number}/0/0/0"


def parse_shard_index(shard: bytes, patches: int) -> list[Extent | None]:
    """Read the index at the end of a shard: where each superpatch lies in its bytes.

    Args:
        shard: all bytes of the object.
        patches: positions of the shard, P.

    Returns:
        For each of the P positions its offset and length in bytes; None where there is no superpatch.

    Raises:
        GeometryError: if the shard is shorter than its index, or the index points outside of the shard or at fewer bytes than
            the shortest superpatch.
    """
    size = 16 * patches
    if len(shard) < size + CRC_BYTES:
        raise GeometryError(f"a shard of {patches} superpatches has at least {size + CRC_BYTES} bytes; found {len(shard)}")
    index = np.frombuffer(shard, "<u8", count=2 * patches, offset=len(shard) - size - CRC_BYTES).reshape(-1, 2)
    extents: list[Extent | None] = []
    for number, (offset, length) in enumerate(index):
        if offset == _ABSENT:
            extents.append(None)
        elif length < LEAST_CHUNK_BYTES or int(offset) + int(length) > len(shard) - size - CRC_BYTES:
            raise GeometryError(f"shard index places superpatch {number} at {offset}+{length} of {len(shard)} bytes")
        else:
            extents.append(Extent(name=str(number), offset=int(offset), length=int(length)))
    return extents


def extract_blosc_frame(chunk: bytes, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> bytes:
    """Return the blosc frame of a stored chunk after checking that its header states the size that the catalog promises.

    Nothing is decompressed here: the sizes are checked before memory is allocated for them.

    Args:
        chunk: the stored bytes: a blosc frame and the 4 bytes of its crc32c.
        shape: of the decompressed array, (1, S, S, S).
        dtype: of the decompressed array.

    Returns:
        The frame, without the crc32c.

    Raises:
        GeometryError: if the chunk is cut off, or states another size.
    """
    frame = memoryview(chunk)[:-CRC_BYTES]
    if len(frame) < _BLOSC_HEADER.size:
        raise GeometryError(f"a stored superpatch of {len(chunk)} bytes is cut")
    *_, num_bytes, _, compressed = _BLOSC_HEADER.unpack_from(frame)
    wanted = dtype.itemsize * math.prod(shape)
    if num_bytes != wanted or compressed != len(frame):
        promise = f"the catalog promises {wanted} from {len(frame)}"
        raise GeometryError(f"superpatch announces {num_bytes} bytes from {compressed}; {promise}")
    return bytes(frame)
