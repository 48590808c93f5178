"""What up to 1,024 GPUs would do: ``benchmarks.model`` with the figures of our recipes. Nothing here ran on them.

python -m benchmarks.simulate                                              # times from this CPU, and assumed for a GPU
python -m benchmarks.simulate --recipe cdssl-p3d --step-s 2:0.05 16:0.3    # samples:seconds, from benchmarks.step there
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.model import Inputs, admits, binding, efficiency, simulate, verdict
from crossdim.training.recipes import recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A recipe's figures that its configuration does not tell."""

    streams: int
    optimizer_slots: int  # numbers kept for a weight
    flop: float  # of a sample, forward and backward; counted by PyTorch's FlopCounterMode on tensors without data
    timed_flop: float  # of the sample that the benchmark behind ``--step-s`` times
    cpu_s: float  # of that sample; measured here, one thread
    peak_flop_s: float  # vendor: NVIDIA H100 SXM, dense
    sample_bytes: float  # measured here: table "Reading"
    views_s: float  # measured here: tables "Reading" and "Views of cdssl-p3d"


NETWORKS = {
    "cdssl-p3d": Network(
        streams=2,
        optimizer_slots=1,
        flop=686e9,  # mean of 481 for an image and 891 for a superpatch
        timed_flop=481e9,  # benchmarks.step has images
        cpu_s=5.15,
        peak_flop_s=495e12,  # TF32
        sample_bytes=1.6 * 2**20,  # mean of a radiograph of 1024 and a superpatch of 128
        views_s=0.0193,  # mean of the two
    ),
    "maesil": Network(
        streams=1,
        optimizer_slots=2,
        flop=690e9,
        timed_flop=690e9,
        cpu_s=33.5,
        peak_flop_s=989e12,  # bf16
        sample_bytes=2.2 * 2**20,
        views_s=0.003,
    ),
}
GPU_SHARE = 0.2  # assumption: of the vendor's peak, for small 3D convolutions and short rows of tokens
GPU_FIXED_S = 0.015  # assumption: 3,000 kernels, started in 5 microseconds each
COUNTS = tuple(2**n for n in range(11))
LARGE_BATCH = 8192
ETHERNET_BYTES_PER_S = 12.5e9  # one port of 100 Gb/s a node


def of_recipe(name: str, *, sample_s: float, fixed_s: float) -> Inputs:
    """Inputs for a recipe; its weights are counted in the network that it builds."""
    network, config = NETWORKS[name], recipe(name)
    method = config.method.build()
    weights, encoder = (sum(p.nbytes for p in part.parameters()) for part in (method, method.encoder))
    return Inputs(
        sample_s=sample_s,
        fixed_s=fixed_s,
        gradient_bytes=weights,
        checkpoint_bytes=weights * (1 + network.optimizer_slots) + encoder,
        sample_bytes=network.sample_bytes,
        views_s=network.views_s,
        streams=network.streams,
        least=max(1, config.method.min_rank_batch),
    )


def parse_step(text: str) -> tuple[float, float]:
    """``samples:seconds`` as numbers."""
    samples, seconds = map(float, text.split(":"))
    return samples, seconds


def line_through(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(fixed, slope) of seconds over samples; a single point goes to the slope alone."""
    (few, short), (many, long) = min(points), max(points)
    if few == many:
        return 0.0, long / many
    slope = (long - short) / (many - few)
    return max(0.0, short - slope * few), slope


def table(inputs: Inputs, steps: Sequence[tuple[int, int]]) -> None:
    """Print a row for every number of GPUs that have samples enough."""
    heads = f"{'gradients':>11}{'store':>9}{'checkpoint':>12}{'losses':>8}{'efficiency':>12}  binds"
    print(f"  {'GPUs':>5}{'samples':>9}{'step, ms':>11}{'compute':>10}{heads}")
    one = simulate(inputs, *steps[0])
    for gpus, batch in steps:
        if admits(inputs, gpus, batch):
            s = simulate(inputs, gpus, batch)
            row = f"{1e3 * s.step_s:>11.1f}{1e3 * s.compute_s:>10.1f}{1e3 * s.gradients_s:>11.2f}{1e3 * s.store_s:>9.1f}"
            row += f"{1e3 * s.checkpoint_s:>12.1f}{1e3 * s.loss_s:>8.1f}{efficiency(one, s):>12.2f}"
            print(f"  {gpus:>5}{batch:>9}{row}  {binding(inputs, gpus, batch)}")


def cases(inputs: Inputs, batch: int) -> Iterator[tuple[str, Inputs, list[tuple[int, int]]]]:
    """Strong scaling of the recipe's batch and of a large one, and weak scaling; again where the prefixes' rate is no limit."""
    strong, weak = [(gpus, LARGE_BATCH) for gpus in COUNTS], [(gpus, batch * gpus) for gpus in COUNTS]
    yield f"strong, {batch} samples", inputs, [(gpus, batch) for gpus in COUNTS]
    for title, steps in ((f"strong, {LARGE_BATCH} samples", strong), (f"weak, {batch} samples a GPU", weak)):
        yield title, inputs, steps
        last = simulate(inputs, *steps[-1])
        fastest = last.batch / inputs.streams / (last.compute_s + last.gradients_s)
        enough = replace(inputs, prefixes=math.ceil(fastest / inputs.prefix_gets_per_s))
        if enough.prefixes > 1:
            yield f"{title}, {enough.prefixes} prefixes a dataset", enough, steps


def scales(name: str, source: str, inputs: Inputs, *, tables: bool) -> None:
    """Print every case's sentence, and its table if asked."""
    print(f"\n{name}, {source}: {1e3 * inputs.sample_s:.3g} ms a sample and {1e3 * inputs.fixed_s:.3g} ms a step")
    for title, timeline, steps in cases(inputs, recipe(name).global_batch):
        print(f"  {title}: {verdict(timeline, steps)}.")
        if tables:
            table(timeline, steps)


def on_gpus(name: str, source: str, inputs: Inputs) -> None:
    """Print tables for the defaults, and sentences for a slow network."""
    scales(name, source, inputs, tables=True)
    slow = replace(inputs, network_bytes_per_s=ETHERNET_BYTES_PER_S)
    scales(name, f"{source}, 100 Gb/s between nodes", slow, tables=False)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=NETWORKS, default="cdssl-p3d", help="the recipe whose step was timed")
    said = "measured steps; one, or two of different size"
    parser.add_argument("--step-s", type=parse_step, nargs="+", metavar="SAMPLES:SECONDS", help=said)
    arguments = parser.parse_args()
    if arguments.step_s:
        network, (fixed, slope) = NETWORKS[arguments.recipe], line_through(arguments.step_s)
        inputs = of_recipe(arguments.recipe, sample_s=slope * network.flop / network.timed_flop, fixed_s=fixed)
        on_gpus(arguments.recipe, "time given by --step-s", inputs)
        return
    for name, network in NETWORKS.items():
        here = network.cpu_s * network.flop / network.timed_flop
        scales(name, "time of one core here, measured", of_recipe(name, sample_s=here, fixed_s=0.0), tables=False)
        there = network.flop / network.peak_flop_s / GPU_SHARE
        on_gpus(name, "time of an H100, ASSUMED", of_recipe(name, sample_s=there, fixed_s=GPU_FIXED_S))


if __name__ == "__main__":
    main()
