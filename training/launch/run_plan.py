"""What a run will take, at each of several numbers of workers: arithmetic on what ``estimate.probe`` measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import PublishedDataset
from crossdim.training.data.order import Order
from crossdim.training.launch.estimate import Probe
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.metric_log import EVERY_S

#: Positions whose samples are looked up one by one, for their sizes; of longer runs the mean sizes are taken.
EXACT_POSITIONS = 1_000_000
#: Writes of a checkpoint with its metrics and event, and of what is logged between two of them.
WRITES_OF_CHECKPOINT, WRITES_OF_LOG = 8, 2
#: Copies of a checkpoint's state in memory while it is written: the copy that training does not touch.
COPIES_OF_STATE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a run reads of one dataset, all workers together.

    Attributes:
        name: of the dataset.
        samples: that are read, those of all passes.
        passes: over the dataset.
        num_bytes: of the samples.
    """

    name: str
    samples: int
    passes: float
    num_bytes: float


def plan_reading(order: Order, datasets: Sequence[PublishedDataset], positions: int) -> list[Reading]:
    """Count what a run reads, by the order of its samples.

    Args:
        order: of the run.
        datasets: of the run.
        positions: samples of the whole run.

    Returns:
        One entry for each dataset; the counts are exact, the bytes are for at most :data:`EXACT_POSITIONS`.
    """
    counts = count_samples(order, positions)
    lengths = [dataset.table["length"].to_numpy() for dataset in datasets]
    if positions <= EXACT_POSITIONS:
        numbers, samples = order.locate(np.arange(positions, dtype=np.int64))
        sizes = [float(length[samples[numbers == number]].sum()) for number, length in enumerate(lengths)]
    else:
        sizes = [float(length.mean()) * count for length, count in zip(lengths, counts, strict=True)]
    return [
        Reading(name=dataset.name, samples=count, passes=count / len(dataset), num_bytes=size)
        for dataset, count, size in zip(datasets, counts, sizes, strict=True)
    ]


def count_samples(order: Order, positions: int) -> list[int]:
    """Count how many of the first positions of a run belong to each dataset.

    Args:
        order: of the run.
        positions: how many.

    Returns:
        The counts, which add up to ``positions``.
    """
    turns, within = divmod(positions, order.stretch)
    cycles, slot = divmod(turns, order.mixture.length)
    before = order.mixture.before(np.array([slot], np.int64))[:, 0]
    counts = (cycles * np.array(order.mixture.weights, np.int64) + before) * order.stretch
    if within:
        counts[order.dataset_at(np.array([positions], np.int64))[0]] += within
    return [int(count) for count in counts]


def plan_workers(config: Pretraining, found: Probe, workers: Sequence[int], saving: Saving) -> list[dict[str, Any]]:
    """Compute what a run takes at each of several numbers of workers.

    Args:
        config: of the run.
        found: what was measured.
        workers: numbers of workers.
        saving: how often checkpoints are written.

    Returns:
        For each number: ``samples`` of a worker in a step, ``step_s``, ``hours`` of the steps, ``wall_s`` of the run,
        ``cpu_hours`` of all workers, ``memory_bytes`` of tensors, ``host_bytes`` and ``device_bytes`` of a process,
        ``requests`` for samples of a worker, ``requests_per_s`` of all, ``checkpoints``, and ``writes``.
    """
    steps, batch = config.steps, config.global_batch
    shares = []
    for number in workers:
        samples = batch / number
        scale = samples / found.samples
        step_s, kept = found.step_s * scale, found.kept_bytes * scale
        held = sum(found.fixed_bytes.values())
        saves = saving.count(steps, step_s)
        more = kept - found.kept_bytes
        on_device = found.device_bytes > 0
        wall_s = found.start_s + steps * step_s + saves * found.save_s
        shares.append(
            {
                "workers": number,
                "samples": samples,
                "step_s": step_s,
                "hours": steps * step_s / 3600,
                "wall_s": wall_s,
                "cpu_hours": number * (found.start_s + steps * found.cpu_step_s * scale) / 3600 + saves * found.save_s / 3600,
                "memory_bytes": (held / number if found.sharded else held) + kept,
                "host_bytes": found.host_bytes + COPIES_OF_STATE * found.stored_bytes["state"] + (0 if on_device else more),
                "device_bytes": found.device_bytes + more if on_device else 0,
                "requests": steps * samples,
                "requests_per_s": batch / step_s,
                "checkpoints": saves,
                "writes": saves * WRITES_OF_CHECKPOINT + WRITES_OF_LOG * wall_s / EVERY_S,
            }
        )
    return shares
