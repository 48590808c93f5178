"""Lookup tables of DICOM headers: a descriptor of three numbers, and data as numbers, 16-bit words or bytes (PS3.3 C.11.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupTable:
    """``entries`` for stored values from ``first`` on; a value beyond an end gets the entry at that end."""

    first: int
    entries: npt.NDArray[np.unsignedinteger[Any]]  # uint8 or uint16

    def __call__(self, stored: Array) -> Array:
        """Output values, of the entries' type."""
        return self.entries[np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)]


def parse_lookup_table(dataset: Any, descriptor: Any, data: Any, *, rule: str) -> LookupTable:
    """Parse a table of a header, and check that its parts agree.

    Args:
        dataset: the file, for byte order and sign of its pixels.
        descriptor: number of entries, first stored value, bits of an entry.
        data: the entries as the file holds them.
        rule: name of the refusal.

    Returns:
        The table, its entries as uint8 or uint16.

    Raises:
        SampleError: of that rule, for a missing or short table, or entries that do not have 8 to 16 bits.
    """
    try:
        count, first, bits = (int(v) for v in descriptor)
    except (TypeError, ValueError) as error:
        raise SampleError(rule, "a lookup table has no descriptor of three numbers") from error
    count = count & 0xFFFF or 1 << 16  # 0 stands for 65,536
    if not 8 <= bits <= 16:
        raise SampleError(rule, f"a lookup table has entries of {bits} bits; 8 to 16 are possible")
    found = _parse_entries(data, count, little_endian=is_little_endian(dataset))
    if len(found) < count:
        raise SampleError(rule, f"a lookup table has {len(found):,} entries; its descriptor says {count:,}")
    narrow = bits == 8 or found.dtype == np.uint8
    entries: Array = (found[:count].astype(np.int64) & ((1 << bits) - 1)).astype(np.uint8 if narrow else np.uint16)
    return LookupTable(first=to_stored(first, signed=is_signed(dataset)), entries=entries)


def _parse_entries(data: Any, count: int, *, little_endian: bool) -> Array:
    if data is None:
        return np.empty(0, np.int64)
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data, np.int64))
    if len(data) in (count, count + 1):  # one byte an entry, and one that makes the length even
        return np.frombuffer(data, np.uint8)
    whole = data[: min(2 * count, len(data) // 2 * 2)]
    return np.frombuffer(whole, "<u2" if little_endian else ">u2").astype(np.int64)


def is_little_endian(dataset: Any) -> bool:
    """Byte order of a file, by its transfer syntax."""
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)


def is_signed(dataset: Any) -> bool:
    """Whether stored pixels are signed."""
    return int(dataset.get("PixelRepresentation") or 0) == 1


def to_stored(value: int, *, signed: bool) -> int:
    """Read a 16-bit number of the header as pixels are read: files write it signed or unsigned, whatever their pixels are.

    Args:
        value: as pydicom reads it.
        signed: whether stored pixels are signed.

    Returns:
        From -32,768 to 32,767 if signed, else from 0 to 65,535.
    """
    value &= 0xFFFF
    return value - 0x10000 if signed and value & 0x8000 else value
