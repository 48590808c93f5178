"""A Ray session: join the cluster that is named, or start a small one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

#: Enough for rows of references and verdicts: pixels never travel through Ray's object store.
OBJECT_STORE_BYTES = 200 * 2**20

#: Set before Ray is imported, so that a user needs no environment variable. What the user has set stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_DEDUP_LOGS": "0",
}


@contextlib.contextmanager
def ray_session(address: str | None = None, *, num_cpus: int | None = None, log_to_driver: bool = False) -> Iterator[None]:
    """Hold a Ray session open.

    Args:
        address: of a running cluster ("auto" finds the one of this machine); None takes the cluster whose job we are
            (Ray names it to its jobs), and otherwise starts one here and stops it afterwards.
        num_cpus: logical CPUs of a session started here; None takes the machine's.
        log_to_driver: whether what workers print is printed here.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.pop("RAY_ADDRESS", None)  # set to nothing, it is an address that Ray cannot read
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not address:
        # A token left behind by a local session would lock later clusters of the same user out of each other.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import ray

    if ray.is_initialized():
        yield
        return
    # "local": without it Ray would join whatever cluster was last started on this machine, whoever started it.
    here: dict[str, Any] = {
        "address": "local",
        "num_cpus": num_cpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    options = {"address": address} if address else here
    ray.init(log_to_driver=log_to_driver, logging_level=logging.WARNING, **options)
    try:
        yield
    finally:
        ray.shutdown()
