"""The header of NumPy's .npy format (NEP 1, versions 1 to 3), read without ``eval`` and without allocating what it claims."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

import numpy as np

from crossdim.storage_schema.errors import SampleError

MAGIC = b"\x93NUMPY"
#: Length field of the header by major version: its format and where the header begins.
_LENGTHS = {1: ("<H", 10), 2: ("<I", 12), 3: ("<I", 12)}
#: Largest header, in bytes; NumPy itself warns above 10,000. Ours.
_MAX_HEADER_BYTES = 1 << 16
#: The header as NumPy's format prescribes it, which NumPy and the writers of other languages keep to.
_HEADER = re.compile(
    r" *\{ *'descr': *(?P<descr>.+?), *'fortran_order': *(?P<order>True|False), *"
    r"'shape': *\((?P<shape> *\d{1,18}(?: *, *\d{1,18})* *,?| *) *\) *,? *\} *\n?"
)
#: Numbers that are read: whole numbers of 1 to 8 bytes and floats of 2, 4 and 8, in either byte order.
_NUMBERS = re.compile(r"'([<>|=]?(?:[iu][1248]|f[248]))'")


@dataclass(frozen=True, kw_only=True, slots=True)
class NpyHeader:
    """A header, checked.

    Attributes:
        shape: of the array; every side is 1 at least.
        dtype: of a number, with its byte order.
        fortran_order: whether the first axis varies fastest in the file; else the last one does.
        data_offset (bytes): where the numbers begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran_order: bool = False
    data_offset: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_image(self) -> bool:
        """Whether the array is an image: two axes, or three of which the last one is RGB. Other arrays are volumes."""
        return len(self.shape) == 2 or (len(self.shape) == 3 and self.shape[-1] == 3 and self.dtype.kind == "u")


def parse_npy_header(data: bytes) -> NpyHeader:
    """Parse and check the header of an .npy file.

    Args:
        data: the file, or its beginning.

    Returns:
        What it says.

    Raises:
        SampleError: rule ``npy_header`` for one that is damaged, ``datatype`` for arrays of objects, records, text or other
            things that are no numbers, ``dimensions`` for an array without values.
        EOFError: if ``data`` ends inside the header.
    """
    if len(data) < 8:
        raise EOFError
    if not data.startswith(MAGIC) or data[6] not in _LENGTHS or data[7]:
        raise SampleError("npy_header", "the file does not begin as .npy files of versions 1 to 3 do")
    code, start = _LENGTHS[data[6]]
    if len(data) < start:
        raise EOFError
    (length,) = struct.unpack_from(code, data, 8)
    if length > _MAX_HEADER_BYTES:
        raise SampleError("npy_header", f"the header claims {length:,} bytes; at most {_MAX_HEADER_BYTES:,} are read")
    if len(data) < start + length:
        raise EOFError
    found = _HEADER.fullmatch(data[start : start + length].decode("latin-1"))
    if found is None:
        raise SampleError("npy_header", "the header does not state descr, fortran_order and shape as NumPy writes them")
    sizes = tuple(int(size) for size in re.findall(r"\d+", found["shape"]))
    if not sizes or min(sizes) < 1:
        raise SampleError("dimensions", f"the header says shape {sizes}; every side needs at least one value")
    return NpyHeader(
        shape=sizes,
        dtype=_parse_dtype(found["descr"]),
        fortran_order=found["order"] == "True" and len(sizes) > 1,
        data_offset=start + length,
    )


def _parse_dtype(descr: str) -> np.dtype[np.generic]:
    found = _NUMBERS.fullmatch(descr)
    if found is None:
        raise SampleError(
            "datatype", "the array is not of whole numbers or floats; save numbers (objects and records are never opened)"
        )
    return np.dtype(found[1])
