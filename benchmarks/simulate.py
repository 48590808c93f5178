"""What up to 1,024 GPUs would do: a model of a data-parallel step, from measured and stated inputs. Nothing here ran on them.

A step is a forward and a backward pass; gradients leave in buckets while the backward pass goes on; data are fetched ahead, so a
step waits only for what the store does not deliver in its time; a checkpoint holds training while the state is copied to the
host, and while the one before is still being written; when a machine is lost, all wait for the restart and do again what was done
since the newest checkpoint that is whole. Left out: stragglers, tails of latency, networks that are shared, and GPUs that small
batches leave idle (beyond ``fixed_s``).

    python -m benchmarks.simulate                                              # times from this CPU, and assumed for a GPU
    python -m benchmarks.simulate --recipe cdssl-p3d --step-s 2:0.05 16:0.3    # samples:seconds, from benchmarks.step there
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from storage_schema.errors import UsageError
from training.recipes import recipe

#: Twice the GPUs must bring at least this much, or scaling has stopped.
WORTHWHILE = 1.5
PARTS = ("compute", "gradients", "store", "checkpoint", "loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """All that the model is told: seconds, bytes, and both a second. The defaults' sources stand beside them."""

    # The network: see NETWORKS and ``of_recipe`` for the sources of what has no default.
    sample_s: float  # forward and backward pass of one sample on one GPU
    fixed_s: float  # what a step costs whatever its samples
    gradient_bytes: int
    checkpoint_bytes: int
    sample_bytes: float  # stored, one range GET
    views_s: float  # of one thread that decodes a sample and draws its views
    streams: int  # datasets that every step holds equally
    least: int  # samples of a dataset that a worker needs
    backward_share: float = 2 / 3  # measured here: 10.3 s of which 3.4 s forward, table "A training step of cdssl-p3d"
    # The exchange of gradients.
    bucket_bytes: int = 25 * 2**20  # PyTorch: the default of DistributedDataParallel
    node_gpus: int = 8  # vendor: NVIDIA DGX H100
    link_bytes_per_s: float = 450e9  # vendor: NVLink of an H100, 900 GB/s in both directions together
    link_latency_s: float = 5e-6  # assumption
    network_bytes_per_s: float = 400e9  # vendor: DGX H100, 8 ports of 400 Gb/s a node
    network_latency_s: float = 15e-6  # assumption
    reached: float = 0.7  # assumption: the part of links and network that a collective reaches
    # The store.
    prefix_gets_per_s: float = 5500  # vendor: AWS, S3 performance guide, at least so many a partitioned prefix
    prefixes: int = 1  # of a dataset; assumption: as it is published, before the store splits it of its own accord
    threads: int = 64  # assumption, of a worker; ``crossdim pretrain`` has 2 unless told otherwise
    ahead: int = 2  # steps that the loader has under way (training/data/loader.py)
    first_byte_s: float = 0.1  # vendor: AWS, S3 performance guide, "roughly 100-200 milliseconds"
    connection_bytes_per_s: float = 85e6  # vendor: AWS, S3 performance guide, 85-90 MB/s a request
    node_store_bytes_per_s: float = 12.5e9  # assumption: 100 Gb/s between a node and the store
    # Checkpoints and losses.
    checkpoint_every_s: float = 600.0  # assumption
    copy_bytes_per_s: float = 50e9  # assumption, of the 64 GB/s of a PCIe 5 slot (vendor)
    upload_bytes_per_s: float = 200e6  # assumption: rank 0, few connections
    node_losses_per_h: float = 419 / (2048 * 54 * 24)  # published: Llama 3 (arXiv 2407.21783), 419 in 54 days, 2,048 nodes
    detection_s: float = 55.0  # measured: a machine falls silent, Ray's defaults, two hosts emulated on 2 cores
    restart_s: float = 72.0  # measured: there, from detection to training again

    def __post_init__(self) -> None:
        if min(self.gradient_bytes, self.bucket_bytes, self.streams, self.least, self.node_gpus, self.threads) < 1:
            raise UsageError(f"a simulation needs bytes of gradients, datasets, samples, GPUs and threads of at least 1: {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Mean seconds of a step of ``batch`` samples, by what they go to; all of them together are ``step_s``."""

    gpus: int
    batch: int
    compute_s: float
    gradients_s: float  # of the exchange, what the backward pass does not hide
    store_s: float  # waiting for data
    checkpoint_s: float
    loss_s: float  # restarts, and steps done again

    @property
    def step_s(self) -> float:
        """The whole step."""
        return self.compute_s + self.gradients_s + self.store_s + self.checkpoint_s + self.loss_s

    @property
    def samples_per_s(self) -> float:
        """Of all GPUs together."""
        return self.batch / self.step_s


def ring_s(size: float, members: int, bytes_per_s: float, latency_s: float) -> float:
    """Seconds of a ring all-reduce: 2 (n - 1) messages of an n-th, one after the other."""
    return 2 * (members - 1) * (size / members / bytes_per_s + latency_s)


def all_reduce_s(inputs: Inputs, size: float, gpus: int) -> float:
    """Seconds of an all-reduce in two floors.

    A node's GPUs reduce an eighth each, ring with the same eighth of the other nodes over an eighth of the node's network, and
    gather the eighths again; the first and the last are together one ring inside the node.

    Raises:
        UsageError: if GPUs do not fill nodes.
    """
    nodes, rest = divmod(gpus, inputs.node_gpus)
    if nodes and rest:
        raise UsageError(f"{gpus} GPUs do not fill nodes of {inputs.node_gpus}; give a multiple of {inputs.node_gpus}, or fewer")
    inside = ring_s(size, min(gpus, inputs.node_gpus), inputs.link_bytes_per_s * inputs.reached, inputs.link_latency_s)
    between = ring_s(size, max(1, nodes), inputs.network_bytes_per_s * inputs.reached, inputs.network_latency_s)
    return inside + between


def exchange(ready: Sequence[float], costs: Sequence[float]) -> list[tuple[float, float]]:
    """When each bucket's all-reduce begins and ends: not before its gradients are there, and one after the other."""
    free, spans = 0.0, []
    for there, cost in zip(ready, costs, strict=True):
        begin = max(there, free)
        free = begin + cost
        spans.append((begin, free))
    return spans


def buckets(size: int, largest: int) -> list[int]:
    """Bytes of each bucket, in the order in which the backward pass fills them."""
    return [min(largest, size - start) for start in range(0, size, largest)]


def fullest(inputs: Inputs, gpus: int, batch: int) -> int:
    """Samples of the GPU that has most of them: no dataset's samples are shared out more evenly than by one."""
    return inputs.streams * math.ceil(batch / inputs.streams / gpus)


def exposed_s(inputs: Inputs, gpus: int, compute_s: float, backward_s: float) -> float:
    """What of the exchange is left when the backward pass ends; gradients come evenly over that pass (assumption)."""
    sizes = buckets(inputs.gradient_bytes, inputs.bucket_bytes)
    ready = [compute_s - backward_s * (1 - done / inputs.gradient_bytes) for done in accumulate(sizes)]
    spans = exchange(ready, [all_reduce_s(inputs, size, gpus) for size in sizes])
    return spans[-1][1] - compute_s


def delivery_s(inputs: Inputs, gpus: int, batch: int) -> float:
    """Seconds in which the store delivers a step: the slowest of a worker's requests, a node's line and the prefixes' rate."""
    samples = fullest(inputs, gpus, batch)
    one_s = inputs.first_byte_s + inputs.sample_bytes / inputs.connection_bytes_per_s + inputs.views_s
    of_node = min(gpus, inputs.node_gpus) * samples * inputs.sample_bytes / inputs.node_store_bytes_per_s
    at_once = min(inputs.threads, inputs.ahead * samples)
    return max(samples * one_s / at_once, of_node, batch / inputs.streams / inputs.prefixes / inputs.prefix_gets_per_s)


def simulated(inputs: Inputs, gpus: int, batch: int) -> Split:
    """A step of ``batch`` samples on that many GPUs, where steps are short beside the time between checkpoints.

    Losses count to first order: one at a time, while steps are done.
    """
    samples = fullest(inputs, gpus, batch)
    compute = inputs.fixed_s + samples * inputs.sample_s
    gradients = exposed_s(inputs, gpus, compute, samples * inputs.sample_s * inputs.backward_share)
    store = max(0.0, delivery_s(inputs, gpus, batch) - compute - gradients)
    running = compute + gradients + store
    upload_s = inputs.checkpoint_bytes / inputs.upload_bytes_per_s
    held_s = inputs.checkpoint_bytes / inputs.copy_bytes_per_s + max(0.0, upload_s - inputs.checkpoint_every_s)
    checkpoint = running * held_s / inputs.checkpoint_every_s
    losses_per_s = inputs.node_losses_per_h / 3600 * math.ceil(gpus / inputs.node_gpus)
    redone_s = inputs.checkpoint_every_s / 2 + upload_s
    loss = (running + checkpoint) * losses_per_s * (inputs.detection_s + inputs.restart_s + redone_s)
    return Split(
        gpus=gpus,
        batch=batch,
        compute_s=compute,
        gradients_s=gradients,
        store_s=store,
        checkpoint_s=checkpoint,
        loss_s=loss,
    )


def admits(inputs: Inputs, gpus: int, batch: int) -> bool:
    """Whether every GPU has the samples it needs, of every dataset."""
    return batch // inputs.streams // gpus >= inputs.least


def efficiency(one: Split, many: Split) -> float:
    """Samples a second and GPU, held against one GPU."""
    return many.samples_per_s / many.gpus / one.samples_per_s


def binding(inputs: Inputs, gpus: int, batch: int) -> str:
    """What binds: the part whose doubling would shorten the step most; ``samples`` where GPUs would have too few."""
    if not admits(inputs, gpus, batch):
        return "samples"
    doubled = {
        "compute": replace(inputs, fixed_s=inputs.fixed_s / 2, sample_s=inputs.sample_s / 2),
        "gradients": replace(
            inputs,
            link_bytes_per_s=inputs.link_bytes_per_s * 2,
            link_latency_s=inputs.link_latency_s / 2,
            network_bytes_per_s=inputs.network_bytes_per_s * 2,
            network_latency_s=inputs.network_latency_s / 2,
        ),
        "store": replace(
            inputs,
            threads=inputs.threads * 2,
            ahead=inputs.ahead * 2,
            prefix_gets_per_s=inputs.prefix_gets_per_s * 2,
            node_store_bytes_per_s=inputs.node_store_bytes_per_s * 2,
            upload_bytes_per_s=inputs.upload_bytes_per_s * 2,
        ),
    }
    return min(doubled, key=lambda part: simulated(doubled[part], gpus, batch).step_s)


def cause(one: Split, many: Split) -> str:
    """Where most of the time goes by which a step is longer than one GPU's, divided by the GPUs."""
    ideal = many.batch / one.batch / many.gpus
    return max(PARTS, key=lambda part: getattr(many, f"{part}_s") - getattr(one, f"{part}_s") * ideal)


def verdict(inputs: Inputs, steps: Sequence[tuple[int, int]]) -> str:
    """Where scaling stops and why, for (GPUs, batch) that double from one to the next."""
    one = simulated(inputs, *steps[0])
    for (fewer, batch), (more, larger) in pairwise(steps):
        few, many = simulated(inputs, fewer, batch), simulated(inputs, more, larger)
        reached = f"stops at {fewer} GPU{'s'[: fewer > 1]}, efficiency {efficiency(one, few):.2f}"
        if not admits(inputs, more, larger):
            left = larger // inputs.streams // more
            return f"{reached}: with {more} a GPU has {left} samples of a dataset and needs {inputs.least} (samples)"
        gain = many.samples_per_s / few.samples_per_s
        if gain < WORTHWHILE:
            return f"{reached}: {more} bring {gain:.2f} times as much; most of what is lost goes to: {cause(one, many)}"
    last = simulated(inputs, *steps[-1])
    return (
        f"goes on to {last.gpus} GPUs, efficiency {efficiency(one, last):.2f}; most of what is lost goes to: {cause(one, last)}"
    )


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


def timed_step(text: str) -> tuple[float, float]:
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
    one = simulated(inputs, *steps[0])
    for gpus, batch in steps:
        if admits(inputs, gpus, batch):
            s = simulated(inputs, gpus, batch)
            row = f"{1e3 * s.step_s:>11.1f}{1e3 * s.compute_s:>10.1f}{1e3 * s.gradients_s:>11.2f}{1e3 * s.store_s:>9.1f}"
            row += f"{1e3 * s.checkpoint_s:>12.1f}{1e3 * s.loss_s:>8.1f}{efficiency(one, s):>12.2f}"
            print(f"  {gpus:>5}{batch:>9}{row}  {binding(inputs, gpus, batch)}")


def cases(inputs: Inputs, batch: int) -> Iterator[tuple[str, Inputs, list[tuple[int, int]]]]:
    """Strong scaling of the recipe's batch and of a large one, and weak scaling; again where the prefixes' rate is no limit."""
    strong, weak = [(gpus, LARGE_BATCH) for gpus in COUNTS], [(gpus, batch * gpus) for gpus in COUNTS]
    yield f"strong, {batch} samples", inputs, [(gpus, batch) for gpus in COUNTS]
    for title, steps in ((f"strong, {LARGE_BATCH} samples", strong), (f"weak, {batch} samples a GPU", weak)):
        yield title, inputs, steps
        last = simulated(inputs, *steps[-1])
        fastest = last.batch / inputs.streams / (last.compute_s + last.gradients_s)
        enough = replace(inputs, prefixes=math.ceil(fastest / inputs.prefix_gets_per_s))
        if enough.prefixes > 1:
            yield f"{title}, {enough.prefixes} prefixes a dataset", enough, steps


def scales(name: str, source: str, inputs: Inputs, *, tables: bool) -> None:
    """Print every case's sentence, and its table if asked."""
    print(f"\n{name}, {source}: {1e3 * inputs.sample_s:.3g} ms a sample and {1e3 * inputs.fixed_s:.3g} ms a step")
    for title, told, steps in cases(inputs, recipe(name).global_batch):
        print(f"  {title}: {verdict(told, steps)}.")
        if tables:
            table(told, steps)


def on_gpus(name: str, source: str, inputs: Inputs) -> None:
    """Print tables for the defaults, and sentences for a slow network."""
    scales(name, source, inputs, tables=True)
    slow = replace(inputs, network_bytes_per_s=ETHERNET_BYTES_PER_S)
    scales(name, f"{source}, 100 Gb/s between nodes", slow, tables=False)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=NETWORKS, default="cdssl-p3d", help="the recipe whose step was timed")
    said = "measured steps; one, or two of different size"
    parser.add_argument("--step-s", type=timed_step, nargs="+", metavar="SAMPLES:SECONDS", help=said)
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
