"""Runs work on all ranks together, so that it fails on all if it fails on one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException


def are_several() -> bool:
    """Whether this process is one of a group; a group may hold it alone."""
    return dist.is_available() and dist.is_initialized()


@contextlib.contextmanager
def fail_together() -> Iterator[None]:
    """Raise, on all ranks, the error of the first rank that failed, and not DCP's BaseException around it."""
    try:
        yield
    except CheckpointException as failure:
        rank = min(failure.failures)
        raise failure.failures[rank][0] from failure
