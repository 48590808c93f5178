"""Fixed batches: a few samples of a run's datasets with views that never change, to see what features become."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from crossdim.storage_schema.vocabulary import Split
from crossdim.training.data.collate import JOINT, Batch, Views, collate
from crossdim.training.data.dataset import PublishedDataset, open_dataset, read_sample
from crossdim.training.data.loader import Draw
from crossdim.training.data.range_reader import open_range_reader

#: Samples of each stream. So many can vary in one dimension less.
NUM_SAMPLES = 32
#: Seed of the views; no position of a run has it.
SEED = 0xF1BED


def read_fixed_batches(datasets: Sequence[PublishedDataset], draw: Draw, threads: int, *, joint: bool) -> list[Batch]:
    """Read :data:`NUM_SAMPLES` samples of each stream, the same in every start and on every rank.

    They are of the split ``test``, which is never trained on, spread evenly over its catalog. A dataset with fewer there gives
    the rest from those it trains on, in views that are not trained on: to keep samples back would change the run.

    Args:
        datasets: the datasets of the run, as they are trained on.
        draw: makes the views of a sample.
        threads: that read samples and draw views.
        joint: whether presentations share a tensor.

    Returns:
        A batch of each stream.

    Raises:
        StorageError: if a sample cannot be read.
    """
    streams: dict[str, list[PublishedDataset]] = {}
    for dataset in datasets:
        streams.setdefault(JOINT if joint else str(dataset.manifest.presentation), []).append(dataset)
    with ThreadPoolExecutor(threads) as pool:
        return [_read(stream, sorted(streams[stream], key=len), draw, pool) for stream in sorted(streams)]


def _read(stream: str, datasets: Sequence[PublishedDataset], draw: Draw, pool: ThreadPoolExecutor) -> Batch:
    """A batch of one stream, with as many samples of each dataset as it has, up to its share of those that are missing."""
    views, keys = list[Views](), list[str]()
    for number, trained in enumerate(datasets):
        wanted = (NUM_SAMPLES - len(keys)) // (len(datasets) - number)
        everything = open_dataset(trained.bucket, split=None, prefer_digest=trained.manifest.digest)
        reader = open_range_reader(trained.bucket)

        rows = choose_samples(everything.column("split"), wanted)
        samples = list(pool.map(partial(read_sample, everything, reader=reader), rows))
        keys += [sample.key for sample in samples]
        views += pool.map(lambda sample: draw(sample, np.random.default_rng([SEED, int(sample.key, 16)])), samples)
    return collate(views, keys, stream, len(keys))


def choose_samples(splits: Sequence[object], wanted: int) -> list[int]:
    """Choose samples, spread evenly over a catalog: those of split ``test`` first, and others if they are too few.

    Args:
        splits: of each sample.
        wanted: how many, at most.

    Returns:
        Their rows, ascending among those of each kind.
    """
    held = [row for row, split in enumerate(splits) if split == Split.TEST]
    others = [row for row, split in enumerate(splits) if split != Split.TEST]
    chosen = spread_rows(held, wanted)
    return chosen + spread_rows(others, wanted - len(chosen))


def spread_rows(rows: Sequence[int], wanted: int) -> list[int]:
    """Choose rows, spread evenly over those there are.

    Args:
        rows: to choose from.
        wanted: how many, at most.

    Returns:
        Some of them, in their order.
    """
    count = min(wanted, len(rows))
    return [rows[number * len(rows) // count] for number in range(count)]
