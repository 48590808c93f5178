"""Model: what a data-parallel step takes on many GPUs, in closed form, from measured and stated inputs.

A step is a forward and a backward pass; gradients leave in buckets while the backward pass goes on; data are fetched ahead, so a
step waits only for what the store does not deliver in its time; a checkpoint holds training while the state is copied to the
host, and while the one before is still being written; when a machine is lost, all wait for the restart and do again what was done
since the newest checkpoint that is whole. Left out: stragglers, tails of latency, networks that are shared, and GPUs that small
batches leave idle (beyond ``fixed_s``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from crossdim.storage_schema.errors import UsageError

#: Twice the GPUs must bring at least this much, or scaling has stopped.
WORTHWHILE = 1.5
PARTS = ("compute", "gradients", "store", "checkpoint", "loss")


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """All that the model is told: seconds, bytes, and both a second. The defaults' sources stand beside them."""

    # The network: ``benchmarks.simulate`` has the sources of what has no default.
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
    detection_s: float = 8.4  # measured here: a machine falls silent, health checks of deploy/; table "Checkpoints and losses"
    restart_s: float = 18.0  # measured there, from detection to training again

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


def simulate(inputs: Inputs, gpus: int, batch: int) -> Split:
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
    return min(doubled, key=lambda part: simulate(doubled[part], gpus, batch).step_s)


def cause(one: Split, many: Split) -> str:
    """Where most of the time goes by which a step is longer than one GPU's, divided by the GPUs."""
    ideal = many.batch / one.batch / many.gpus
    return max(PARTS, key=lambda part: getattr(many, f"{part}_s") - getattr(one, f"{part}_s") * ideal)


def verdict(inputs: Inputs, steps: Sequence[tuple[int, int]]) -> str:
    """Where scaling stops and why, for (GPUs, batch) that double from one to the next."""
    one = simulate(inputs, *steps[0])
    for (fewer, batch), (more, larger) in pairwise(steps):
        few, many = simulate(inputs, fewer, batch), simulate(inputs, more, larger)
        reached = f"stops at {fewer} GPU{'s'[: fewer > 1]}, efficiency {efficiency(one, few):.2f}"
        if not admits(inputs, more, larger):
            left = larger // inputs.streams // more
            return f"{reached}: with {more} a GPU has {left} samples of a dataset and needs {inputs.least} (samples)"
        gain = many.samples_per_s / few.samples_per_s
        if gain < WORTHWHILE:
            return f"{reached}: {more} bring {gain:.2f} times as much; most of what is lost goes to: {cause(one, many)}"
    last = simulate(inputs, *steps[-1])
    return (
        f"goes on to {last.gpus} GPUs, efficiency {efficiency(one, last):.2f}; most of what is lost goes to: {cause(one, last)}"
    )
