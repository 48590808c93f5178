"""Mixing: every mode is exact, resumable, and alike on every rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import RunError
from crossdim.training.data.mixing import Mixing, MixMode
from crossdim.training.data.order import DatasetOrder, Order


def _order(mixing: Mixing, global_batch: int, weights: tuple[int, ...] = (1, 3)) -> Order:
    datasets = tuple(DatasetOrder(num_samples=50 + 7 * w, weight=w) for w in weights)
    return Order(5, datasets, mixing.stretch(global_batch))


def _kinds(order: Order, global_batch: int, steps: int) -> list[set[int]]:
    return [set(order.dataset_at(np.arange(s * global_batch, (s + 1) * global_batch)).tolist()) for s in range(steps)]


def test_ratio_gives_each_dataset_whole_steps_in_exact_proportion() -> None:
    """At r = 0.25, M = 8: exactly 2 of every 8 steps in a row are of the first dataset."""
    kinds = _kinds(_order(Mixing(mode="ratio"), 12), 12, 64)
    assert all(len(kind) == 1 for kind in kinds)
    assert all(sum(kind == {0} for kind in kinds[i : i + 8]) == 2 for i in range(56))


def test_the_sequence_of_a_ratio_does_not_know_where_a_run_was_resumed_or_who_asks() -> None:
    """On every rank, and after a resume at any step: what a step holds follows from its position alone."""
    order = _order(Mixing(mode="ratio"), 12)
    for step in range(16):
        whole = [len(share) for share in order.share(step * 12, 12, 0, 1)]
        ranks = [[len(share) for share in order.share(step * 12, 12, rank, 3)] for rank in range(3)]
        assert np.sum(ranks, axis=0).tolist() == whole
        assert sorted(whole) == [0, 12]


def test_blocks_stay_with_a_dataset_for_as_many_steps_as_they_say() -> None:
    kinds = _kinds(_order(Mixing(mode="block", block_steps=5), 8, (1, 1)), 8, 20)
    assert kinds == [{0}] * 5 + [{1}] * 5 + [{0}] * 5 + [{1}] * 5


@given(mode=st.sampled_from(["paired", "ratio", "block", "joint"]), batch=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_mode_walks_every_sample_once_before_one_comes_again(mode: MixMode, batch: int, seed: int) -> None:
    mixing = Mixing(mode=mode, block_steps=3)
    order = Order(seed, (DatasetOrder(num_samples=11), DatasetOrder(num_samples=5, weight=2)), mixing.stretch(batch))
    dataset, sample = order.locate(np.arange(40 * order.period))
    for number, size in enumerate((11, 5)):
        seen = sample[dataset == number]
        for epoch in range(len(seen) // size):
            assert sorted(seen[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))


def test_the_smallest_batch_counts_the_worst_rank_of_the_worst_step() -> None:
    paired = Mixing()
    order = Order(0, (DatasetOrder(num_samples=9, weight=3), DatasetOrder(num_samples=9, weight=2)))
    assert paired.smallest_batch(order, 10, 1) == 4
    assert paired.smallest_batch(order, 10, 3) == 1
    assert paired.smallest_batch(order, 8, 1) == 3  # 3.2 on average: some steps hold 3 of the second dataset
    assert Mixing(mode="joint").smallest_batch(order, 10, 1) == 10
    assert Mixing(mode="joint").smallest_batch(order, 10, 3) == 3  # 2 of the first dataset, 1 of the second
    ratio = Mixing(mode="ratio")
    assert ratio.smallest_batch(_order(ratio, 10), 10, 3) == 3  # steps without the other dataset count only what they hold


def test_unknown_mixing_is_refused() -> None:
    with pytest.raises(RunError, match="mixing is paired, ratio, block or joint"):
        Mixing(mode="shuffled")  # type: ignore[arg-type]
