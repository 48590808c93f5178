"""Checks that there are GPUs for a run that needs them, before anything waits for them."""

from __future__ import annotations

import logging

from crossdim.storage_schema.errors import UsageError

_LOG = logging.getLogger(__name__)


def check_gpus(found: int, least: int, most: int, where: str) -> None:
    """Check that workers have GPUs to wait for.

    Args:
        found: GPUs that there are, or that a cluster can bring up by itself.
        least: workers that the run needs to start, each with one GPU.
        most: workers that it can use.
        where: whose GPUs they are.

    Raises:
        UsageError: if there is none. Where there are some, but too few to start, machines may still be joining: that is told.
    """
    workers = f"{least} to {most} workers" if least < most else "1 worker" if most == 1 else f"{most} workers"
    if not found:
        raise UsageError(
            f"{where} has 0 GPUs; --gpu wants {workers} of 1 GPU: leave --gpu out to train on CPUs, or use machines with GPUs"
        )
    if found < least:
        _LOG.warning("%s has %d GPUs; --gpu wants %s of 1 GPU: waiting for more to join", where, found, workers)
