"""WebDataset layout: shard and member names, samples as member bytes, and reproducible tar bytes.

A shard is a plain USTAR file that any reader opens. Members of a sample are adjacent and sorted by key; owner, mode and
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
    """Path of an image shard inside a dataset.

    Args:
        source: name of the recipe that wrote the shard.
        number: of the shard, from 0; written with at least six digits.

    Returns:
        ``images/<source>-<number>.tar``.
    """
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


def encode_npy(array: Array) -> bytes:
    """Encode an array as a ``.npy`` file in C order; arrays of objects are refused."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def decode_npy(data: bytes, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """Decode a ``.npy`` file without a copy.

    The header must state the shape and dtype that the catalog promises, so that a damaged file cannot make the reader allocate.

    Args:
        data: all bytes of the file.
        shape: that the catalog promises.
        dtype: that the catalog promises.

    Returns:
        The array, read-only, on the memory of ``data``.

    Raises:
        GeometryError: if header, promise and length disagree, or the promise is an array of objects or an empty one.
    """
    if dtype.hasobject:
        raise GeometryError("arrays of objects are refused (they need pickle)")
    header, start = _split_npy_header(data)
    promised = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}"
    if header not in (f"{promised}}}", f"{promised}, }}"):  # the second as NumPy writes it
        raise GeometryError(f".npy says {header[:200]!r}; the catalog promises {dtype.str} {shape}, rows first")
    if len(data) - start != dtype.itemsize * math.prod(shape) or any(size < 1 for size in shape):
        raise GeometryError(f".npy of {dtype} {shape} has {len(data) - start} bytes of data")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _split_npy_header(data: bytes) -> tuple[str, int]:
    """The text of a ``.npy`` header and the offset of the data.

    NumPy parses this text; here it is compared. Python 3.11's parser sometimes fails where several threads parse at once ("AST
    constructor recursion depth mismatch"), and samples are read by threads.
    """
    width = _NPY_LENGTH_BYTES.get(data[:8])
    start = 0 if width is None else 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    if width is None or not 8 + width <= start <= min(len(data), NPY_HEADER_LIMIT):
        raise GeometryError(f"not a .npy file: begins with {data[:12]!r}")
    return data[8 + width : start].decode("latin1").rstrip(" \n"), start


def build_record(sample: Sample) -> dict[str, object]:
    """Build the ``.json`` member: everything that a sample states beside its array."""
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


def build_members(sample: Sample) -> list[Member]:
    """Build the shard members of a sample: the array, then the record.

    Raises:
        GeometryError: if the key holds a dot or a slash.
    """
    if "." in sample.key or "/" in sample.key:
        raise GeometryError(f"key {sample.key!r} would be cut at its dot or slash by WebDataset readers")
    return [
        Member(name=f"{sample.key}.{ARRAY_SUFFIX}", data=encode_npy(sample.array)),
        Member(name=f"{sample.key}.{RECORD_SUFFIX}", data=canonical_json(build_record(sample))),
    ]


def pack_tar(members: Sequence[Member]) -> tuple[bytes, list[Extent]]:
    """Pack members into a tar, and report where the bytes of each one lie."""
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
    """Parse the ``.json`` member.

    Raises:
        GeometryError: if it is not a JSON object.
    """
    try:
        record = json.loads(data)
    except ValueError as error:
        raise GeometryError(f"record is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise GeometryError(f"record is a {type(record).__name__}, not an object")
    return record
