"""WebDataset layout: shard and member names, samples as member bytes, and reproducible tar bytes.

A shard is a plain USTAR file that any reader opens. Members of a sample stand together, sorted by key; owner, mode and
time are constants, so equal samples are equal bytes.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.sample import Array, Sample
from crossdim.storage_schema.vocabulary import ARRAY_SUFFIX, RECORD_SUFFIX

#: Two empty blocks end a tar; tarfile pads to this record size.
TAR_BLOCK_BYTES = 512
#: First eight bytes of a .npy file (magic, version), and how many bytes the header's length takes then.
_NPY_LENGTH_BYTES = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}
#: NumPy writes 128 bytes for arrays of the format's ranks.
NPY_HEADER_LIMIT = 1024


def shard_path(source: str, number: int) -> str:
    """Path of an image shard inside a dataset."""
    return f"images/{source}-{number:06d}.tar"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One file inside a shard."""

    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """Where the bytes of one member lie in its object."""

    name: str
    offset: int
    length: int


def npy_bytes(array: Array) -> bytes:
    """An array as a .npy file, C order; arrays of objects are refused."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def npy_array(data: bytes, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """The array in a .npy file, without a copy; read-only.

    The header must state the shape and dtype that the catalog promised, so nothing is allocated on a stranger's word.

    Raises:
        GeometryError: if header, promise and length do not agree, or the promise is an array of objects or of nothing.
    """
    if dtype.hasobject:
        raise GeometryError("arrays of objects are refused (they need pickle)")
    header, start = _npy_header(data)
    promised = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}"
    if header not in (f"{promised}}}", f"{promised}, }}"):  # the second as NumPy writes it
        raise GeometryError(f".npy says {header[:200]!r}; the catalog promises {dtype.str} {shape}, rows first")
    if len(data) - start != dtype.itemsize * math.prod(shape) or any(size < 1 for size in shape):
        raise GeometryError(f".npy of {dtype} {shape} has {len(data) - start} bytes of data")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _npy_header(data: bytes) -> tuple[str, int]:
    """The text of a .npy header and where the data start.

    It is compared and not parsed, as NumPy does: Python 3.11's parser fails now and then where several threads parse at once
    ("AST constructor recursion depth mismatch"), and samples are read by threads.
    """
    width = _NPY_LENGTH_BYTES.get(data[:8])
    start = 0 if width is None else 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if width is None or not 8 + width <= start <= min(len(data), NPY_HEADER_LIMIT):
        raise GeometryError(f"not a .npy file: begins with {data[:12]!r}")
    return data[8 + width : start].decode("latin1").rstrip(" \n"), start


def record_of(sample: Sample) -> dict[str, object]:
    """What a sample says of itself beside its array: the .json member."""
    scaling = sample.scaling
    return {
        "key": sample.key,
        "presentation": str(sample.presentation),
        "modality": str(sample.modality),
        "slope": scaling.slope,
        "intercept": scaling.intercept,
        "unit_low": scaling.low,
        "unit_high": scaling.high,
        "spacing_mm": sample.spacing_mm,
        "source_uri": sample.origin.uri,
        "source_sha256": sample.origin.sha256,
        "part": sample.origin.part,
        "label": sample.label,
        "patient": sample.patient,
        **sample.extra,
    }


def members_of(sample: Sample) -> list[Member]:
    """A sample as shard members: the array, then the record."""
    if "." in sample.key or "/" in sample.key:
        raise GeometryError(f"key {sample.key!r} would be cut at its dot or slash by WebDataset readers")
    return [
        Member(name=f"{sample.key}.{ARRAY_SUFFIX}", data=npy_bytes(sample.array)),
        Member(name=f"{sample.key}.{RECORD_SUFFIX}", data=canonical_json(record_of(sample))),
    ]


def tar_bytes(members: Sequence[Member]) -> tuple[bytes, list[Extent]]:
    """Pack members into a tar; also say where the bytes of each one lie."""
    buffer = io.BytesIO()
    extents = []
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.size, info.mode = len(member.data), 0o444
            extents.append(Extent(name=member.name, offset=buffer.tell() + TAR_BLOCK_BYTES, length=info.size))
            tar.addfile(info, io.BytesIO(member.data))
    return buffer.getvalue(), extents


def parse_record(data: bytes) -> dict[str, object]:
    """The .json member as a dictionary.

    Raises:
        GeometryError: if it is no JSON object.
    """
    try:
        record = json.loads(data)
    except ValueError as error:
        raise GeometryError(f"record is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise GeometryError(f"record is a {type(record).__name__}, not an object")
    return record
