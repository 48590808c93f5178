"""Loader: the batches of each step, prefetched, in order. It keeps no position; the caller passes the first one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from crossdim.storage_schema.sample import Sample
from crossdim.training.data.collate import JOINT, Batch, Views, collate
from crossdim.training.data.dataset import PublishedDataset, Report, read_sample
from crossdim.training.data.order import Order, rng_at
from crossdim.training.data.range_reader import open_range_reader

_LOG = logging.getLogger(__name__)
Draw = Callable[[Sample, np.random.Generator], Views]


@dataclass(kw_only=True, slots=True)
class _Group:
    """The samples of a step that become one batch.

    Attributes:
        counts: samples on all ranks, by presentation.
        least: samples of the rank that has the fewest.
        futures: of this rank's samples.
        borrowed: of a sample of another rank, if this one has none.
    """

    counts: dict[str, int] = field(default_factory=dict)
    least: int = 0
    futures: list[Future[tuple[str, Views]]] = field(default_factory=list)
    borrowed: Future[tuple[str, Views]] | None = None

    def batch(self, stream: str) -> Batch:
        done = [future.result() for future in ([self.borrowed] if self.borrowed else self.futures)]
        batch = collate([views for _, views in done], [key for key, _ in done], stream, sum(self.counts.values()))
        return replace(batch, keys=() if self.borrowed else batch.keys, counts=self.counts, least=self.least)


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """What to load.

    Attributes:
        order: which sample is at each position.
        global_batch: positions of one step.
        rank: of this process.
        world: number of ranks.
        joint: whether presentations share a tensor.
        threads: that read samples and draw views.
        ahead: steps that are prefetched.
    """

    order: Order
    global_batch: int
    rank: int
    world: int
    joint: bool = False
    threads: int = 2
    ahead: int = 2


def step_batches(
    loading: Loading, datasets: Sequence[PublishedDataset], draw: Draw, first: int, stop: int, reread: Report = _LOG.warning
) -> Iterator[list[Batch]]:
    """The batches of this rank for each step from position ``first`` to ``stop``.

    Every sample is read and its views are drawn in a thread, with the generator of its position, so results do not depend on
    threads, ranks or restarts. Memory is bounded by ``loading.ahead`` steps.

    Args:
        loading: order, batch size, rank and prefetching.
        datasets: in the order of ``loading.order.datasets``.
        draw: makes the views of a sample, given the generator of its position; called in threads.
        first: first position, a multiple of the global batch.
        stop: position after the last one.
        reread: called with a message, in a thread, for samples that were right only when read a second time.

    Yields:
        For each step a list of batches, one for each presentation.
    """
    readers = [open_range_reader(dataset.bucket) for dataset in datasets]

    def fetch(number: int, index: int, position: int) -> tuple[str, Views]:
        sample = read_sample(datasets[number], index, readers[number], reread)
        return sample.key, draw(sample, rng_at(loading.order.seed, position))

    with ThreadPoolExecutor(loading.threads, thread_name_prefix="views") as pool:
        positions = iter(range(first, stop, loading.global_batch))
        pending: deque[dict[str, _Group]] = deque()

        def submit() -> None:
            position = next(positions, None)
            if position is not None:
                pending.append(_submit_step(loading, datasets, position, lambda *work: pool.submit(fetch, *work)))

        try:
            for _ in range(loading.ahead):
                submit()
            while pending:
                step = pending.popleft()
                batches = [group.batch(stream) for stream, group in sorted(step.items())]
                submit()
                yield batches
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _submit_step(
    loading: Loading,
    datasets: Sequence[PublishedDataset],
    first: int,
    submit: Callable[[int, int, int], Future[tuple[str, Views]]],
) -> dict[str, _Group]:
    """Start reading this rank's samples of the step at position ``first``, grouped by stream."""
    order, size = loading.order, loading.global_batch
    shares, whole = (order.share(first, size, rank, world) for rank, world in ((loading.rank, loading.world), (0, 1)))
    fewest = order.share(first, size, 0, loading.world)  # rank 0 never has more of a dataset than another rank
    step, spare = dict[str, _Group](), dict[str, tuple[int, int, int]]()
    for number, (dataset, share, least, positions) in enumerate(zip(datasets, shares, fewest, whole, strict=True)):
        if not len(positions):
            continue
        presentation = str(dataset.manifest.presentation)
        stream = JOINT if loading.joint else presentation
        group = step.setdefault(stream, _Group())
        group.counts[presentation] = group.counts.get(presentation, 0) + len(positions)
        group.least += len(least)
        _, samples = order.locate(share)
        group.futures += [submit(number, int(index), int(position)) for index, position in zip(samples, share, strict=True)]
        spare.setdefault(stream, (number, int(order.locate(positions[:1])[1][0]), int(positions[0])))
    for stream, group in step.items():
        if not group.futures:
            group.borrowed = submit(*spare[stream])
    return step
