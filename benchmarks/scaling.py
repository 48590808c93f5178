"""What a second worker brings: the real training loop on one core, on two, and on two that do not exchange gradients.

A worker is a process on a core of its own: arithmetic in one thread, views and the exchange of gradients beside it on that core.
Limit of two workers: two processes that train on half a batch each and never speak. The global batch of the others is the
recipe's. Rounds alternate; steps at the beginning are not counted. What larger worlds would do is simulated by
``benchmarks.simulate``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.stopwatch import spread
from crossdim.foundation.bucket import Bucket
from crossdim.training.engine import loop
from crossdim.training.engine.control import StopControl
from crossdim.training.engine.train_state import TrainState
from crossdim.training.launch.worker import Job, Source, train
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.metrics import read_metrics
from tests.training.published import images, publish, superpatches

#: Steps that are run and not counted: imports, first allocations, kernels that are chosen on first use.
SKIPPED = 10
EXCHANGES = 30
DATA = {"cdssl-p3d:tiny": ("flat", "solid"), "maesil:tiny": ("solid",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Processes that run at the same time, and whether they are workers of one run."""

    name: str
    processes: int
    one_run: bool


ONE = Case(name="1 worker", processes=1, one_run=True)
TWO = Case(name="2 workers", processes=2, one_run=True)
SEPARATE = Case(name="2 that do not communicate", processes=2, one_run=False)
CASES = (ONE, TWO, SEPARATE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Medians over the counted steps of one process, in seconds.

    Attributes:
        period: from step to step, everything in it.
        gradient: forward and backward pass, with the exchange of gradients and waiting for the other worker where there is one.
        wait: for data.
        other: update, agreement on the step's numbers, log.
        processor: spent by the process on all of its threads; no neighbour on the machine adds to it directly.
        exchange: of one all-reduce as large as all gradients and nothing else; 0 where there is nobody to speak to.
    """

    period: float
    gradient: float
    wait: float
    other: float
    processor: float
    exchange: float


class Watch:
    """Stands where the loop computes its gradient, and notes when it is called and when it has it."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.ended: list[float] = []
        self.spent: list[float] = []
        self._gradient = loop._compute_gradient

    def __call__(self, *arguments: Any) -> Any:
        """The gradient of a step."""
        self.begun.append(time.perf_counter())
        self.spent.append(time.process_time())
        sums = self._gradient(*arguments)
        self.ended.append(time.perf_counter())
        return sums

    def summarize(self, waits: list[float], exchange: float) -> Timing:
        """Medians over the counted steps. A step lasts from its gradient to the next one's, so the next one's wait is in it."""
        gradients = [end - begin for begin, end in zip(self.begun[:-1], self.ended, strict=False)]
        periods = [after - before for before, after in pairwise(self.begun)]
        others = [p - g - w for p, g, w in zip(periods, gradients, waits[1:], strict=True)]
        processor = [after - before for before, after in pairwise(self.spent)]
        medians = (statistics.median(values[SKIPPED:]) for values in (periods, gradients, waits[1:], others, processor))
        period, gradient, wait, other, spent = medians
        return Timing(period=period, gradient=gradient, wait=wait, other=other, processor=spent, exchange=exchange)


def gradient_bytes(name: str) -> int:
    """Bytes of a recipe's gradients: of its weights."""
    method = TrainState.build(recipe(name), torch.device("cpu")).method
    return sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)


def measure_exchange(size: int) -> float:
    """Seconds of an all-reduce of that many bytes, median."""
    gradients, times = torch.zeros(size // 4), list[float]()
    for _ in range(EXCHANGES):
        dist.barrier()
        begun = time.perf_counter()
        dist.all_reduce(gradients)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def process(index: int, case: Case, first_core: int, name: str, steps: int, folder: str, data: tuple[str, ...]) -> None:
    """One of the processes of a case, in a run of its own or in that of all."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[(first_core + index) % len(cores)]})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=index, world_size=case.processes)
    dist.barrier()  # whoever is first must not run on an idle machine
    if not case.one_run:
        dist.destroy_process_group()
    rank, world, parts = (index, case.processes, 1) if case.one_run else (0, 1, case.processes)
    config = recipe(name)
    config = replace(config, steps=steps, global_batch=config.global_batch // parts)
    run = Bucket(f"{folder}/run" if case.one_run else f"{folder}/run-{index}")
    sources = tuple(Source(bucket=Bucket(url), weight=1.0) for url in data)
    job = Job(config=config.document(), sources=sources, run=run, saving=Saving(every=steps), threads=1)
    watch = Watch()
    loop._compute_gradient = watch
    train(job, rank, world, torch.device("cpu"), StopControl())
    exchange = measure_exchange(gradient_bytes(name)) if case.one_run and world > 1 else 0.0
    if rank == 0:  # which alone has a log
        timed = watch.summarize([record["wait_s"] for record in read_metrics(run)], exchange)
        Path(folder, f"{index}.json").write_text(json.dumps(asdict(timed)))
    if case.one_run:
        dist.destroy_process_group()


def run_case(case: Case, first_core: int, name: str, steps: int, data: tuple[str, ...]) -> Timing:
    """Run the processes of a case; of two that do not communicate, return the timing of the slower one."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, args=(case, first_core, name, steps, folder, data), nprocs=case.processes, join=True)
        found = [Timing(**json.loads(path.read_text())) for path in sorted(Path(folder).glob("*.json"))]
    return max(found, key=lambda timed: timed.period)


def publish_datasets(folder: Path) -> dict[str, str]:
    """Two small datasets, written once for all runs."""
    buckets = {"flat": Bucket(str(folder / "flat")), "solid": Bucket(str(folder / "solid"))}
    publish(buckets["flat"], images(60), "flat")
    publish(buckets["solid"], superpatches(40), "solid")
    return {name: bucket.url for name, bucket in buckets.items()}


def show(name: str, rounds: list[dict[str, Timing]], size: int) -> None:
    """Print the table of a recipe."""
    batch = recipe(name).global_batch
    print(
        f"\n{name}: {batch} samples a step in all, {size / 2**20:.2f} MiB of gradients; median (min-max) of {len(rounds)} rounds"
    )
    print(f"  {'case':<20}{'steps/s':>22}{'speed-up':>20}{'efficiency':>20}{'processor ms a worker':>26}{'speed-up by it':>20}")
    for case in CASES:
        found = [one[case.name] for one in rounds]
        faster = [one[ONE.name].period / one[case.name].period for one in rounds]
        spared = [one[ONE.name].processor / one[case.name].processor for one in rounds]
        share = spread([f / case.processes for f in faster], 2)
        row = f"{spread([1 / f.period for f in found], 2):>22}{spread(faster, 2):>20}{share:>20}"
        print(f"  {case.name:<20}{row}{spread([f.processor * 1e3 for f in found], 1):>26}{spread(spared, 2):>20}")
    parts(rounds)
    lost(rounds)


def parts(rounds: list[dict[str, Timing]]) -> None:
    """Print what a step consists of."""
    print(f"  {'ms a step':<20}{'gradient':>24}{'waiting for data':>22}{'other':>22}")
    for case in CASES:
        found = [one[case.name] for one in rounds]
        row = "".join(
            f"{spread([1e3 * part for part in values], 1):>{width}}"
            for width, values in (
                (24, [f.gradient for f in found]),
                (22, [f.wait for f in found]),
                (22, [f.other for f in found]),
            )
        )
        print(f"  {case.name:<20}{row}")
    print(f"  one all-reduce of that size alone: {spread([1e3 * one[TWO.name].exchange for one in rounds], 2)} ms")


def lost(rounds: list[dict[str, Timing]]) -> None:
    """Print where the time went by which two workers take longer than half of one's. Of medians, so parts add up nearly."""
    triples = [(one[ONE.name], one[TWO.name], one[SEPARATE.name]) for one in rounds]
    losses = {
        "two workers beyond half of one": [two.period - one.period / 2 for one, two, _ in triples],
        "half a batch is more than half": [mute.gradient - one.gradient / 2 for one, _, mute in triples],
        "exchange, and waiting for it": [two.gradient - mute.gradient for _, two, mute in triples],
        "waiting for data": [two.wait - one.wait / 2 for one, two, _ in triples],
        "other": [two.other - one.other / 2 for one, two, _ in triples],
    }
    for title, seconds in losses.items():
        print(f"  {title:<32}{spread([1e3 * s for s in seconds], 1):>24} ms")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help=f"of each run, {SKIPPED} of them not counted")
    parser.add_argument("--only", choices=DATA, nargs="+", default=tuple(DATA), metavar="RECIPE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = publish_datasets(Path(folder))
        for name in arguments.only:
            data = tuple(urls[key] for key in DATA[name])
            rounds = [
                # One worker takes another core every round: neighbours may sit on one of them.
                {case.name: run_case(case, number, name, arguments.steps, data) for case in CASES}
                for number in range(arguments.rounds)
            ]
            show(name, rounds, gradient_bytes(name))
    print(f"\nload of the last minute: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
