"""Loader: the batches of each step, fetched ahead, in order. It holds no position of its own: the caller names the first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from storage_schema.sample import Sample
from storage_schema.vocabulary import Presentation
from training.data.collate import Batch, Views, collate
from training.data.corpus import Corpus, read_sample
from training.data.order import Order, rng_at
from training.data.ranges import open_ranges

Draw = Callable[[Sample, np.random.Generator], Views]
_Pending = list[tuple[Presentation, int, list[Future[tuple[str, Views]]]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """What to load: the order, who we are in it, and how far ahead to fetch."""

    order: Order
    global_batch: int
    rank: int
    world: int
    threads: int = 2
    ahead: int = 2


def step_batches(loading: Loading, corpora: Sequence[Corpus], draw: Draw, first: int, stop: int) -> Iterator[list[Batch]]:
    """For each step from position ``first`` to ``stop``: this rank's batches, one a presentation.

    Every sample is read and its views are drawn in a thread, with the generator of its position, so results do not
    depend on threads, ranks or restarts. Memory is bounded by ``ahead`` steps.
    """
    ranges = [open_ranges(corpus.bucket) for corpus in corpora]

    def fetch(number: int, index: int, position: int) -> tuple[str, Views]:
        sample = read_sample(corpora[number], index, ranges[number])
        return sample.key, draw(sample, rng_at(loading.order.seed, position))

    with ThreadPoolExecutor(loading.threads, thread_name_prefix="views") as pool:
        positions = iter(range(first, stop, loading.global_batch))
        pending: deque[_Pending] = deque()

        def submit() -> None:
            position = next(positions, None)
            if position is not None:
                pending.append(_submitted(loading, corpora, position, lambda *work: pool.submit(fetch, *work)))

        try:
            for _ in range(loading.ahead):
                submit()
            while pending:
                step = pending.popleft()
                batches = [_gathered(presentation, size, futures) for presentation, size, futures in step]
                submit()
                yield batches
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _submitted(
    loading: Loading, corpora: Sequence[Corpus], first: int, submit: Callable[[int, int, int], Future[tuple[str, Views]]]
) -> _Pending:
    """Start fetching this rank's part of the step at ``first``, grouped by presentation."""
    shares = loading.order.share(first, loading.global_batch, loading.rank, loading.world)
    sizes = [len(share) for share in loading.order.share(first, loading.global_batch, 0, 1)]
    step: dict[Presentation, tuple[int, list[Future[tuple[str, Views]]]]] = {}
    for number, (corpus, share, size) in enumerate(zip(corpora, shares, sizes, strict=True)):
        _, samples = loading.order.locate(share)
        futures = [submit(number, int(index), int(position)) for index, position in zip(samples, share, strict=True)]
        before_size, before = step.get(corpus.manifest.presentation, (0, []))
        step[corpus.manifest.presentation] = (before_size + size, before + futures)
    return [(presentation, size, futures) for presentation, (size, futures) in sorted(step.items()) if size]


def _gathered(presentation: Presentation, size: int, futures: list[Future[tuple[str, Views]]]) -> Batch:
    done = [future.result() for future in futures]
    return collate([views for _, views in done], [key for key, _ in done], presentation, size)
