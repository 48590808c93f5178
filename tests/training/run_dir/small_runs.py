"""Runs of a few small objects, as their writers write them, in any state."""

from __future__ import annotations

import time

from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir import layout
from crossdim.training.run_dir.events import EventLog, Kind
from crossdim.training.run_dir.run_config import write_run_config

STEPS = 10


def write_run(run: Bucket, *kinds: Kind, age_s: float = 0.0) -> Bucket:
    """Write a run with these events, a checkpoint and what Ray leaves.

    Args:
        run: its folder.
        *kinds: of events after each of which nothing was written for long; none for a run whose workers have not started.
        age_s: how long ago the last of them happened.

    Returns:
        The folder.
    """
    write_run_config(run, {"config": {"steps": STEPS}}, [])
    run.put(layout.RAY_MARKER, b"")
    run.put(layout.RAY_REQUESTER, b"train-1")
    if kinds:
        folder = f"{layout.CHECKPOINTS}/{layout.checkpoint_name(2)}"
        for path in (f"{folder}/{layout.STATE}", f"{folder}/{layout.HASHES}", layout.metrics_path(0), layout.ENCODER):
            run.put(path, b"12345")
    events = EventLog(run, workers=1)
    for kind in kinds:
        events.add(kind, 2, time_s=time.time() - age_s)
    return run


def paths_of(run: Bucket) -> list[str]:
    """Every path in a folder, hidden and half-written ones too; none if there is no folder."""
    return [one.path for one in run.list_objects(problems=True, temporary=True)] if run.exists() else []
