"""MAESIL at the paper's size: what masking saves, what a step costs, and how little memory a whole volume needs.

Limit of the encoder's table: the same encoder on all tokens. Goals: seeing a quarter of the tokens is at least 3 times faster;
drawing masks is less than 1 percent of a step. Parts run in processes of their own, for a peak of memory is one of a process:

    python -m benchmarks.maesil [encoding | step | streaming]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.stopwatch import in_turns, show, spread, wait_for_device
from crossdim.storage_schema.sample import Scaling
from crossdim.training.data.collate import Batch
from crossdim.training.data.order import rng_at
from crossdim.training.evaluation.assembly import Tiling, restore_in_slabs
from crossdim.training.layers.tokens import Counts
from crossdim.training.methods.base import Method, Step, total_of
from crossdim.training.methods.maesil import Maesil
from crossdim.training.methods.masked_autoencoder import MaskedAutoencoder
from crossdim.training.recipes.maesil import paper, tiny

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RUNS = 20 if DEVICE.type == "cuda" else 2
GRID: Counts = (16, 16, 16)
SIDE = 128
VOLUME: Counts = (300, 512, 512)


def network() -> tuple[Maesil, MaskedAutoencoder]:
    """The paper's, freshly drawn."""
    config = paper().method
    assert isinstance(config, Maesil)
    torch.manual_seed(0)
    return config, config.build().to(DEVICE)


def draw_visible_ids(config: Maesil) -> torch.Tensor:
    """Visible ids of one sample, from its generator to the device."""
    chance = torch.from_numpy(config.mask.draw(GRID, rng_at(0, 0)))[None].to(DEVICE)
    return config.mask.visible(chance)


def peak_mib() -> float:
    """Most memory so far: of the GPU, or of this process."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def encoding() -> None:
    """A quarter of the tokens against all of them, forward, in float32."""
    config, method = network()
    x, ids = torch.rand(1, 1, SIDE, SIDE, SIDE, device=DEVICE), draw_visible_ids(config)
    encoder = method.encoder.eval()
    with torch.no_grad():
        cases = {
            "all 4096 tokens": wait_for_device(DEVICE, lambda: encoder(x)),
            "1024 tokens": wait_for_device(DEVICE, lambda: encoder(x, ids)),
        }
        times = in_turns(cases, runs=RUNS)
    ratios = [a / b for a, b in zip(times["all 4096 tokens"], times["1024 tokens"], strict=True)]
    show(f"encoding one superpatch, forward ({where()})", times, limit="all 4096 tokens", unit="s", per_second=1, digits=3)
    print(f"  masked is {spread(ratios, 2)} times faster; goal 3")


def attention_share(call: Callable[[], object]) -> float:
    """Share of a call's time inside attention proper, forward and backward; projections are not counted."""
    activity = torch.profiler.ProfilerActivity.CUDA if DEVICE.type == "cuda" else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        call()
    events = profile.key_averages()

    def spent(event: object) -> float:
        name = "self_device_time_total" if DEVICE.type == "cuda" else "self_cpu_time_total"
        return float(getattr(event, name))

    words = ("flash", "fmha", "scaled_dot_product", "attention")
    return sum(spent(e) for e in events if any(w in e.key.lower() for w in words)) / sum(map(spent, events))


def step() -> None:
    """One optimizer step of batch 1."""
    config, method = network()
    method.train()
    run = paper()
    optimizer = run.optimizer.build(method)
    x = torch.rand(1, 1, SIDE, SIDE, SIDE, device=DEVICE)
    chance = torch.from_numpy(config.mask.draw(GRID, rng_at(0, 0)))[None].to(DEVICE)
    batch = Batch(stream="superpatch", keys=("a",), counts={"superpatch": 1}, least=1, tensors={"x": x, "chance": chance})

    def once() -> None:
        optimizer.zero_grad()
        total_of(_outcome(method, batch)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    times = in_turns({"step": wait_for_device(DEVICE, once)}, runs=RUNS)
    peak = peak_mib()
    masks = in_turns({"draw and sort": wait_for_device(DEVICE, lambda: draw_visible_ids(config))}, runs=9, repeat=20)[
        "draw and sort"
    ]
    tokens = [GRID[0] * GRID[1] * GRID[2] / s for s in times["step"]]
    print(f"\none step, batch 1, float32 ({where()})")
    print(f"  step {spread(times['step'], 3)} s; {spread(tokens, 0)} tokens/s of the grid; peak {peak:.0f} MiB")
    print(f"  attention {100 * attention_share(wait_for_device(DEVICE, once)):.1f} percent of it")
    share = 100 * float(np.median(masks)) / float(np.median(times["step"]))
    print(f"  masks {spread([m * 1e3 for m in masks], 2)} ms, {share:.3f} percent of a step; goal 1")


def _outcome(method: Method, batch: Batch) -> dict[str, torch.Tensor]:
    losses: dict[str, torch.Tensor] = method(batch, Step(index=0, total=1, seed=0)).losses
    return losses


def streaming() -> None:
    """A CT of 512 x 512 x 300 restored from a memory map into a memory map, by the tiny network on boxes of 128^3."""
    torch.manual_seed(0)
    method = tiny().method.build().eval().to(DEVICE)
    scaling = Scaling(intercept=-1000, low=-1000, high=1000)

    def restore(x: torch.Tensor, number: int) -> torch.Tensor:
        restored = method.reconstruct(x.to(DEVICE))
        assert restored is not None
        return restored.cpu()

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        stored, result = (np.memmap(Path(folder) / name, np.int16, "w+", shape=(1, *VOLUME)) for name in ("stored", "result"))
        restore(torch.rand(1, 1, SIDE, SIDE, SIDE), 0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        begun = time.perf_counter()
        for start, unit in restore_in_slabs(stored, scaling, restore, Tiling(side=SIDE, overlap=16), 0):
            result[:, start : start + unit.shape[1]] = np.rint(unit * 2000)
        seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    row = SIDE * VOLUME[1] * VOLUME[2] * 4 / 2**20
    print(f"\na volume of {VOLUME}, 75 boxes of 128^3, overlap 16 ({where()})")
    mapped = 4 * np.prod(VOLUME) / 2**20
    print(f"  {seconds:.1f} s; peak {after:.0f} MiB: {before:.0f} for Python, network and one box,", end=" ")
    print(f"{mapped:.0f} for pages of both files, {after - before - mapped:.0f} for the rest")
    print(f"  limit of the rest, one row of boxes in float32: {row:.0f} MiB")


def where() -> str:
    """The machine."""
    return torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


PARTS = {part.__name__: part for part in (encoding, step, streaming)}


def main() -> None:
    """Print the tables asked for, or all, each from a process of its own."""
    if sys.argv[1:]:
        for name in sys.argv[1:]:
            PARTS[name]()
        return
    for name in PARTS:
        subprocess.run([sys.executable, "-m", "benchmarks.maesil", name], check=True)


if __name__ == "__main__":
    main()
