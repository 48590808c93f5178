"""Pictures of a run: how long they hold training, what drawing them costs the steps beside it, and their bytes.

A run of the whole network of cdssl-p3d (17 million parameters) on small views of volumes, with pictures every few steps.
Limit of what holds training: one copy of the weights in memory.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from unittest.mock import patch

import torch

from benchmarks.saving import copies_s
from benchmarks.stopwatch import spread
from crossdim.foundation.bucket import Bucket
from crossdim.training.engine.control import StopControl
from crossdim.training.launch.worker import Job, Source, train
from crossdim.training.pictures.hook import PictureHook
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.layout import STEP_PICTURES
from crossdim.training.run_dir.metrics import read_metrics
from tests.training.published import publish, superpatches


def run(folder: str, steps: int, every: int) -> tuple[Bucket, list[float], list[tuple[float, float]]]:
    """Train, in this process; returns the run, seconds that training was held, and when pictures were drawn."""
    data, out = Bucket(f"{folder}/data"), Bucket(f"{folder}/run")
    publish(data, superpatches(20), "solid")
    config = recipe("cdssl-p3d")
    solid = replace(recipe("cdssl-p3d:tiny").method.solid, global_side=(16, 32, 32))
    config = replace(config, method=replace(config.method, solid=solid), steps=steps, global_batch=4)
    source, at = Source(bucket=data, weight=1.0), tuple(range(every, steps, every))
    job = Job(config=config.document(), sources=(source,), run=out, saving=Saving(every=steps), pictures_at=at)
    held, drawn = list[float](), list[tuple[float, float]]()
    hold, write = PictureHook._draw, PictureHook._write

    def measure_hold(self: PictureHook, done: int) -> None:
        begun = time.perf_counter()
        hold(self, done)
        held.append(time.perf_counter() - begun)

    def measure_write(self: PictureHook, done: int, weights: dict[str, torch.Tensor]) -> None:
        begun = time.time()
        write(self, done, weights)
        drawn.append((begun, time.time()))

    with patch.object(PictureHook, "_draw", measure_hold), patch.object(PictureHook, "_write", measure_write):
        train(job, 0, 1, torch.device("cpu"), StopControl())
    return out, held[1:], drawn[1:]  # the first makes room, and reads the samples


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, held, drawn = run(folder, arguments.steps, arguments.every)
        sizes = [one.size for one in out.list_objects(STEP_PICTURES)]
        lines = read_metrics(out)[arguments.every :]
    beside, alone = list[float](), list[float]()
    for line in lines:
        ended = line["time_s"]
        at_once = any(begun < ended and ended - line["step_s"] < end for begun, end in drawn)
        (beside if at_once else alone).append(line["step_s"])
    weights = sum(parameter.nbytes for parameter in recipe("cdssl-p3d").method.build().parameters())
    print(f"{weights / 1e6:.1f} MB of weights, {torch.get_num_threads()} threads; seconds, median (min-max)")
    print(f"  one copy of them in memory (limit)  {spread(copies_s(weights), 3)}")
    print(f"  training held by pictures           {spread(held, 3)}")
    print(f"  drawn in the background             {spread([end - begun for begun, end in drawn], 2)}")
    print(f"  a step while nothing is drawn       {spread(alone, 3)}")
    print(f"  a step beside drawing               {spread(beside, 3)}")
    print(f"  bytes of a step                     {statistics.median(sizes):,.0f}")


if __name__ == "__main__":
    main()
