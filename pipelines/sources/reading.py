"""Inputs read whole or in part, with what their absence means: a fault of the input, which the store's absence is not."""

from __future__ import annotations

from collections.abc import Callable

from foundation.bucket import Bucket
from storage_schema.errors import SampleError, StorageError


def _of_input(read: Callable[[], bytes]) -> bytes:
    """The bytes that ``read`` gives; an input that is gone is a fault of that input, a store that is gone is not."""
    try:
        return read()
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise SampleError("missing", "the file was listed, but is gone") from error
        raise


def read_head(source: Bucket, path: str, num_bytes: int) -> bytes:
    """The first bytes of an input.

    Raises:
        SampleError: rule ``missing``.
        StorageError: if the store does not answer for long.
    """
    return _of_input(lambda: source.read_range(path, 0, num_bytes))


def read_whole(source: Bucket, path: str, size: int) -> bytes:
    """All bytes of an input, which must be those that were listed.

    Raises:
        SampleError: rule ``missing`` or ``changed``.
        StorageError: if the store does not answer for long.
    """
    data = _of_input(lambda: source.read(path))
    if len(data) != size:
        raise SampleError(
            "changed", f"the file was listed with {size:,} bytes and now has {len(data):,}; do not write while preparing"
        )
    return data
