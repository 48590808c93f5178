"""Inputs read whole or in part. A missing file is a fault of the input; a store that does not answer is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import SampleError, ShortObjectError, StorageError, UnreachableError


def _build_missing_error() -> SampleError:
    return SampleError("missing", "the file was listed, but is gone; do not remove files while preparing")


def _build_changed_error() -> SampleError:
    return SampleError("changed", "the file was written anew after it was listed; do not write while preparing")


def _read_input(read: Callable[[], bytes], source: Bucket, path: str, version: str) -> bytes:
    """Read bytes; an error of that input alone becomes a refusal of the input and does not end the job."""
    try:
        return read()
    except UnreachableError:
        raise
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _build_missing_error() from error
        if isinstance(error.__cause__, PermissionError):
            raise SampleError("unreadable", "the file may be listed, but not be read with these rights") from error
        if version and _ask_version(source, path) != version:
            raise _build_changed_error() from error
        if isinstance(error, ShortObjectError):
            raise SampleError("unreadable", "the file has fewer bytes than it is listed with, as special files do") from error
        raise


def _ask_version(source: Bucket, path: str) -> str:
    """Ask the store for the current version of an input."""
    try:
        found = source.list_objects(path)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _build_missing_error() from error
        raise
    return found[0].version if len(found) == 1 else ""


def read_head(source: Bucket, path: str, num_bytes: int, *, version: str = "") -> bytes:
    """Read the first bytes of an input.

    Args:
        source: that holds the input.
        path: inside the source.
        num_bytes: how many; the input has at least as many.
        version: that was listed (see ``StoredObject``); empty if the store tells none.

    Returns:
        ``num_bytes`` bytes.

    Raises:
        SampleError: rule ``missing``, ``unreadable`` or ``changed``.
        StorageError: if the store does not answer for long.
    """
    return _read_input(lambda: source.read_range(path, 0, num_bytes), source, path, version)


def read_whole(source: Bucket, path: str, size: int, *, version: str = "") -> bytes:
    """Read all bytes of an input, which must be those that were listed.

    Args:
        source: that holds the input.
        path: inside the source.
        size: that was listed.
        version: that was listed (see ``StoredObject``); empty if the store tells none.

    Returns:
        ``size`` bytes.

    Raises:
        SampleError: rule ``missing``, ``unreadable`` or ``changed``.
        StorageError: if the store does not answer for long.
    """
    data = _read_input(lambda: source.read(path), source, path, version)
    if len(data) != size:
        raise SampleError(
            "changed", f"the file was listed with {size:,} bytes and now has {len(data):,}; do not write while preparing"
        )
    if version and not _has_etag(data, source, version) and _ask_version(source, path) != version:
        raise _build_changed_error()
    return data


def _has_etag(data: bytes, source: Bucket, version: str) -> bool:
    """Whether a store's version is the hash of these bytes, as of an object sent in one piece; else the store is asked."""
    return not source.is_local and hashlib.md5(data, usedforsecurity=False).hexdigest() == version
