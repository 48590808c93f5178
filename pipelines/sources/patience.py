"""Reads and writes that outlast a store's short absence, and name what a long one means."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from foundation.bucket import Bucket
from storage_schema.errors import SampleError, StorageError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
#: Seconds between attempts; together with the store client's own retries this outlasts a server's restart. Ours.
WAITS_S = (0.5, 2.0, 8.0)


def _is_missing(error: StorageError) -> bool:
    return isinstance(error.__cause__, FileNotFoundError)


def patiently(work: Callable[[], Result]) -> Result:
    """The result of ``work``, tried again while the store does not answer; what does not exist is not waited for.

    Raises:
        StorageError: of the last attempt.
    """
    for wait_s in WAITS_S:
        try:
            return work()
        except StorageError as error:
            if _is_missing(error):
                raise
            logger.warning("store did not answer, next attempt in %.1f s: %s", wait_s, error)
            time.sleep(wait_s)
    return work()


def _of_input(read: Callable[[], bytes], path: str) -> bytes:
    """The bytes that ``read`` gives; an input that is gone is a fault of that input, a store that is gone is not."""
    try:
        return patiently(read)
    except StorageError as error:
        if _is_missing(error):
            raise SampleError("missing", f"{path} was listed, but is gone") from error
        raise


def read_head(source: Bucket, path: str, num_bytes: int) -> bytes:
    """The first bytes of an input.

    Raises:
        SampleError: rule ``missing``.
        StorageError: if the store does not answer for long.
    """
    return _of_input(lambda: source.read_range(path, 0, num_bytes), path)


def read_whole(source: Bucket, path: str, size: int) -> bytes:
    """All bytes of an input, which must be those that were listed.

    Raises:
        SampleError: rule ``missing`` or ``changed``.
        StorageError: if the store does not answer for long.
    """
    data = _of_input(lambda: source.read(path), path)
    if len(data) != size:
        raise SampleError(
            "changed", f"{path} was listed with {size:,} bytes and now has {len(data):,}; do not write while preparing"
        )
    return data
