"""Check and decode the samples of catalog rows from the bytes of their object."""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc

from crossdim.storage_schema.bank import extract_blosc_frame
from crossdim.storage_schema.catalog import drop_checksum
from crossdim.storage_schema.errors import CrossdimError, Problem
from crossdim.storage_schema.sample import Array
from crossdim.storage_schema.shards import decode_npy
from crossdim.storage_schema.vocabulary import Encoding

CatalogRow = dict[str, Any]


def decode_row(data: bytes, row: CatalogRow) -> Array:
    """Decode the array of a catalog row as the loader does: sizes are checked first.

    Args:
        data: the stored range.
        row: of the catalog.

    Returns:
        The array, read-only, of the row's shape and dtype.

    Raises:
        CrossdimError: if the bytes are not what the row promises.
    """
    shape, dtype = tuple(row["shape"]), np.dtype(row["dtype"])
    if row["encoding"] == Encoding.NPY:
        return decode_npy(data, shape, dtype)
    frame = Blosc().decode(extract_blosc_frame(data, shape, dtype))
    return np.frombuffer(frame, dtype).reshape(shape)


def check_row(data: bytes, row: CatalogRow) -> Array | Problem:
    """Check one row of an object: range, crc32c, and decoding.

    Args:
        data: all bytes of the object.
        row: of the catalog.

    Returns:
        The array, or what is wrong with it.
    """
    start, end = row["offset"], row["offset"] + row["length"]
    part = data[start:end]
    if not 0 <= start < end <= len(data):
        return Problem(loc=row["key"], message=f"lies at {start}+{row['length']} in an object of {len(data)} bytes")
    if google_crc32c.value(drop_checksum(part, Encoding(row["encoding"]))) != row["crc32c"]:
        return Problem(loc=row["key"], message="bytes do not match their crc32c")
    try:
        return decode_row(part, row)
    except (CrossdimError, ValueError, RuntimeError) as error:
        return Problem(loc=row["key"], message=f"cannot be decoded: {error}")
