"""A training step: every backbone, and the published step beside ours.

Limit: the same number of multiplications as one large matrix product, which is what the machine's arithmetic can do. Times
are of processor seconds on a CPU (one thread unless told otherwise), so that neighbours on the machine count less.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.stopwatch import spread
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones import BACKBONES
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.config.execution import Execution
from crossdim.training.data.collate import Batch
from crossdim.training.engine.execution import autocast, prepare
from crossdim.training.methods.base import Method, Step, total_of
from crossdim.training.methods.pyramid import PyramidNet
from tests.oracles import pcrlv2 as published
from tests.training.methods.test_against_pcrlv2 import ours_and_published

STEP = Step(index=1, total=9, seed=5)
STREAM = str(Presentation.PSEUDO3D)
#: Backbones whose decoder gives three levels for views of these sizes.
KINDS = ("unet3d", "resenc", "vit3d", "swin3d")
GLOBAL, LOCAL, NUM_LOCAL = (16, 56, 56), (16, 24, 24), 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Seconds of every run, operations and bytes of one."""

    forward_s: list[float]
    both_s: list[float]
    flop: int
    peak_bytes: int


def views(batch: int, device: torch.device) -> Batch:
    """Random views of the paper's size for images: two global ones, the clean one, six local ones."""
    shapes = {"view1": GLOBAL, "view2": GLOBAL, "clean1": GLOBAL}
    tensors = {name: torch.rand(batch, 1, *shape, device=device) for name, shape in shapes.items()}
    tensors["local"] = torch.rand(batch, NUM_LOCAL, 1, *LOCAL, device=device)
    return Batch(stream=STREAM, keys=("k",) * batch, counts={STREAM: batch}, tensors=tensors, least=batch)


def voxels(batch: int) -> int:
    """Voxels of all views that go through a network."""
    return batch * (2 * GLOBAL[0] * GLOBAL[1] * GLOBAL[2] + NUM_LOCAL * LOCAL[0] * LOCAL[1] * LOCAL[2])


def clock(device: torch.device) -> float:
    """Processor seconds on a CPU; elapsed seconds, everything done, on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    begun = clock(device)
    call()
    return clock(device) - begun


def ours(method: Method, compute: Execution, batch: Batch, device: torch.device, *, backward: bool) -> Callable[[], Tensor]:
    """One step of ours without the optimizer."""

    def step() -> Tensor:
        method.zero_grad(set_to_none=True)
        with autocast(compute, device):
            total = total_of(method(batch, STEP).losses)
        if backward:
            torch.autograd.backward(total)
        return total.detach()

    return step


def theirs(network: published.PCRLv23d, batch: Batch, *, backward: bool) -> Callable[[], Tensor]:
    """One step as published, with the levels that ours draws."""

    def drawn() -> Iterator[int]:
        rng = STEP.rng(STREAM)
        yield int(rng.integers(3))
        for _ in range(NUM_LOCAL):
            yield from (int(level) for level in rng.integers(0, 3, 2))

    def step() -> Tensor:
        network.zero_grad(set_to_none=True)
        t = batch.tensors
        crops = [t["local"][:, i] for i in range(NUM_LOCAL)]
        terms = published.losses(network, t["view1"], t["view2"], t["clean1"], crops, STEP.progress, drawn())
        total = torch.stack(list(terms.values())).sum()
        if backward:
            total.backward()
        return total.detach()

    return step


def arithmetic(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: the limit."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / min(measure_seconds(lambda: a @ b, device) for _ in range(5))


def resident() -> int:
    """The most bytes that this process has held. Not from getrusage, which goes on from the parent's peak."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def measure_step(kind: str, compute: Execution, batch: int, runs: int, device: torch.device, threads: int) -> Figures:
    """A backbone at its default size, in a process of its own, so that its peak memory is its own."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    method = prepare(PyramidNet(BACKBONES[kind](), "random"), compute, device).train()
    data = views(batch, device)
    forward, both = (ours(method, compute, data, device, backward=b) for b in (False, True))
    with FlopCounterMode(display=False) as counter:
        both()
    return Figures(
        forward_s=[measure_seconds(forward, device) for _ in range(runs)],
        both_s=[measure_seconds(both, device) for _ in range(runs)],
        flop=int(counter.get_total_flops()),
        peak_bytes=resident() if device.type == "cpu" else torch.cuda.max_memory_allocated(device),
    )


def backbones(kinds: Sequence[str], batch: int, runs: int, device: torch.device, threads: int) -> None:
    """Print a row for every backbone and way of computing."""
    ways = {"fp32": Execution()}
    if device.type == "cuda":
        ways |= {"bf16": Execution(precision="bf16"), "bf16, compiled": Execution(precision="bf16", compiled=True)}
    limit = arithmetic(device, torch.float32 if device.type == "cpu" else torch.bfloat16)
    print(f"\nbackbones at default size, {batch} images, {voxels(batch):,} voxels; limit {limit / 1e9:.0f} Gop/s")
    heads = f"{'forward, s':>22}{'and backward, s':>22}{'voxels/s':>12}{'Gop':>8}{'of limit':>10}{'peak MiB':>10}"
    print(f"  {'backbone':<24}{heads}")
    for kind in kinds:
        for way, compute in ways.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                f = pool.submit(measure_step, kind, compute, batch, runs, device, threads).result()
            best = sorted(f.both_s)[len(f.both_s) // 2]
            row = f"{spread(f.forward_s, 3):>22}{spread(f.both_s, 3):>22}{voxels(batch) / best:>12,.0f}{f.flop / 1e9:>8,.0f}"
            print(f"  {kind + ', ' + way:<24}{row}{f.flop / best / limit:>10.0%}{f.peak_bytes / 2**20:>10,.0f}")


def beside(width: int, batch: int, runs: int, device: torch.device) -> None:
    """Print the published step and ours, in turns, at equal weights, views and draws."""
    mine, other = ours_and_published(0, width)
    mine, other, data = mine.float().to(device), other.float().to(device), views(batch, device)
    last = prepare(PyramidNet(UNet3DSettings(base_width=width), "random"), Execution(), device).train()
    last.load_state_dict(mine.state_dict())
    plain = Execution(channels_last=False)
    for backward in (False, True):
        cases = {
            "as published": theirs(other, data, backward=backward),
            "ours, plain layout": ours(mine, plain, data, device, backward=backward),
            "ours": ours(last, Execution(), data, device, backward=backward),
        }
        print(f"\nbase width {width}, {batch} images, forward{' and backward' if backward else ''}")
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(runs + 1):
            for name, call in cases.items():
                seconds = measure_seconds(call, device)
                if number:
                    times[name].append(seconds)
                else:
                    with FlopCounterMode(display=False) as counter:
                        value = call().item()
                    print(f"  {name:<22} total {value:.5f}, {counter.get_total_flops() / 1e9:,.1f} Gop")
                gc.collect()
        for name, seconds_of in times.items():
            faster = [a / b for a, b in zip(times["as published"], seconds_of, strict=True)]
            print(f"  {name:<22} {spread(seconds_of, 3)} s, {spread(faster, 2)} times as fast")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--only", choices=KINDS, nargs="+", default=KINDS, metavar="BACKBONE", help="rows of the second table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    for width, batch in ((16, 4 * arguments.batch), (32, arguments.batch)) if arguments.only == KINDS else ():
        beside(width, batch, arguments.runs, device)
    backbones(arguments.only, arguments.batch, arguments.runs, device, arguments.threads)


if __name__ == "__main__":
    main()
