"""Inputs read whole or in part, with what their absence means: a fault of the input, which the store's absence is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import SampleError, StorageError, UnreachableError


def _missing_error() -> SampleError:
    return SampleError("missing", "the file was listed, but is gone; do not remove files while preparing")


def _changed() -> SampleError:
    return SampleError("changed", "the file was written anew after it was listed; do not write while preparing")


def _of_input(read: Callable[[], bytes], source: Bucket, path: str, version: str) -> bytes:
    """The bytes that ``read`` gives; what is wrong with that input alone is a fault of the input, and no end of the job."""
    try:
        return read()
    except UnreachableError:
        raise
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _missing_error() from error
        if isinstance(error.__cause__, PermissionError):
            raise SampleError("unreadable", "the file may be listed, but not be read with these rights") from error
        if version and _version_now(source, path) != version:
            raise _changed() from error
        raise


def _version_now(source: Bucket, path: str) -> str:
    """The version of an input at this moment."""
    try:
        found = source.list_objects(path)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _missing_error() from error
        raise
    return found[0].version if len(found) == 1 else ""


def read_head(source: Bucket, path: str, num_bytes: int, *, version: str = "") -> bytes:
    """The first bytes of an input.

    Args:
        source: that holds the input.
        path: inside the source.
        num_bytes: how many.
        version: that was listed (see ``StoredObject``); empty if the store tells none.

    Raises:
        SampleError: rule ``missing``, ``unreadable`` or ``changed``.
        StorageError: if the store does not answer for long.
    """
    return _of_input(lambda: source.read_range(path, 0, num_bytes), source, path, version)


def read_whole(source: Bucket, path: str, size: int, *, version: str = "") -> bytes:
    """All bytes of an input, which must be those that were listed.

    Args:
        source: that holds the input.
        path: inside the source.
        size: that was listed.
        version: that was listed (see ``StoredObject``); empty if the store tells none.

    Raises:
        SampleError: rule ``missing``, ``unreadable`` or ``changed``.
        StorageError: if the store does not answer for long.
    """
    data = _of_input(lambda: source.read(path), source, path, version)
    if len(data) != size:
        raise SampleError(
            "changed", f"the file was listed with {size:,} bytes and now has {len(data):,}; do not write while preparing"
        )
    if version and not _has_etag(data, source, version) and _version_now(source, path) != version:
        raise _changed()
    return data


def _has_etag(data: bytes, source: Bucket, version: str) -> bool:
    """Whether a store's version is the hash of these bytes, as of an object that was sent in one piece: it need not be asked."""
    return not source.is_local and hashlib.md5(data, usedforsecurity=False).hexdigest() == version
