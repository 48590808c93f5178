"""Saving: how long a checkpoint holds training, and what writing it in the background costs the steps beside it.

A run of the whole network of cdssl-p3d (17 million parameters, 137 MB with its momentum) on small views. Limit of what holds
training: one copy of those bytes in memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from dataclasses import replace

import torch

from benchmarks.stopwatch import spread
from crossdim.foundation.bucket import Bucket
from crossdim.training.engine.control import StopControl
from crossdim.training.launch.worker import Job, Source, train
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.metrics import read_metrics
from tests.training.published import publish, superpatches


def run(folder: str, steps: int, every: int) -> Bucket:
    """Train, in this process."""
    data, out = Bucket(f"{folder}/data"), Bucket(f"{folder}/run")
    publish(data, superpatches(20), "solid")
    config = recipe("cdssl-p3d")
    solid = replace(recipe("cdssl-p3d:tiny").method.solid, global_side=(16, 32, 32))
    config = replace(config, method=replace(config.method, solid=solid), steps=steps, global_batch=4)
    job = Job(config=config.document(), sources=(Source(bucket=data, weight=1.0),), run=out, saving=Saving(every=every))
    train(job, 0, 1, torch.device("cpu"), StopControl())
    return out


def copies_s(size_bytes: int, runs: int = 7) -> list[float]:
    """Seconds of a copy in memory that is warm on both sides."""
    source, target = torch.ones(size_bytes // 4), torch.zeros(size_bytes // 4)
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - begun)
    return times


def figures(out: Bucket, every: int) -> dict[str, list[float]]:
    """Seconds, by what they are of; the first checkpoint, which makes room for its copy, and the last are left out."""
    notes = [json.loads(out.read(event.path)) for event in list_events(out) if event.kind == "checkpoint"][1:-1]
    lines = read_metrics(out)[every:]
    found: dict[str, list[float]] = {name: [note[name] for note in notes] for name in ("held_s", "written_s")}
    found["apart"] = [later["time_s"] - note["time_s"] for note, later in itertools.pairwise(notes)]
    writing = [(note["time_s"] - note["written_s"], note["time_s"]) for note in notes]
    for line in lines:
        beside = any(begun < line["time_s"] and line["time_s"] - line["step_s"] < ended for begun, ended in writing)
        found.setdefault("beside" if beside else "alone", []).append(line["step_s"])
    return found


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = run(folder, arguments.steps, arguments.every)
        size = len(out.read(f"checkpoints/step-{arguments.steps:08d}/state.pt"))
        found = figures(out, arguments.every)
    share = statistics.mean(found["held_s"]) / statistics.mean(found["apart"])
    print(f"{size / 1e6:.1f} MB every {arguments.every} steps, {torch.get_num_threads()} threads; seconds, median (min-max)")
    print(f"  one copy of it in memory (limit)   {spread(copies_s(size), 3)}")
    print(f"  training held by a checkpoint      {spread(found['held_s'], 3)}, {share:.2%} of the time between two")
    print(f"  written in the background          {spread(found['written_s'], 2)}")
    print(f"  a step while nothing is written    {spread(found['alone'], 3)}")
    print(f"  a step beside writing              {spread(found['beside'], 3)}")


if __name__ == "__main__":
    main()
