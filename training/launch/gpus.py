"""Checks that there are GPUs for a run that needs them, before anything waits for them."""

from __future__ import annotations

import logging

from crossdim.storage_schema.errors import UsageError
from crossdim.training.launch.waiting import describe_count, describe_needs

_LOG = logging.getLogger(__name__)


def check_gpus(found: int, least: int, most: int, where: str, *, may_join: bool) -> None:
    """Check that workers have GPUs to wait for.

    Args:
        found: GPUs that there are, or that a cluster can bring up by itself.
        least: workers that the run needs to start, each with one GPU.
        most: workers that it can use.
        where: whose GPUs they are.
        may_join: whether machines may still join: then too few GPUs are waited for, and that is logged.

    Raises:
        UsageError: if there are none, or too few for ever.
    """
    has = f"{where} has {describe_count(found, 'GPU')}; --gpu needs {describe_needs(least, most, 'GPU')}"
    if not found:
        raise UsageError(f"{has}: leave --gpu out to train on CPUs, or use machines with GPUs")
    if found < least and not may_join:
        raise UsageError(f"{has}: lower --workers to {found}, or join a cluster that has more with --ray-address")
    if found < least:
        _LOG.warning("%s: waiting for more to join", has)
