"""Order is arithmetic: every promise of it is an identity over generated worlds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.training.data.order import DatasetOrder, Order, hash_words, permute, rng_at

GOLDEN = Path(__file__).parents[2] / "golden" / "order_v1.txt"

sizes = st.integers(1, 700)
dataset_orders = st.builds(
    DatasetOrder, num_samples=sizes, weight=st.integers(1, 4), granule=st.integers(1, 40), lanes=st.integers(1, 70)
)


@given(size=sizes, key=st.integers(0, 2**63 - 1))
def test_a_keyed_permutation_visits_everything_once(size: int, key: int) -> None:
    assert sorted(permute(np.arange(size), size, hash_words(key))) == list(range(size))


@given(order=dataset_orders, seed=st.integers(0, 2**32), epoch=st.integers(0, 5))
def test_every_pass_of_a_dataset_holds_every_sample_once(order: DatasetOrder, seed: int, epoch: int) -> None:
    """Nothing is padded and nothing dropped, whatever granules and lanes do not divide."""
    cursor = np.arange(epoch * order.num_samples, (epoch + 1) * order.num_samples)
    assert sorted(order.sample(cursor, seed, 0)) == list(range(order.num_samples))


@given(parts=st.lists(dataset_orders, min_size=1, max_size=3), cycles=st.integers(1, 5))
def test_a_mixture_is_exact_in_every_cycle(parts: list[DatasetOrder], cycles: int) -> None:
    order = Order(0, tuple(parts))
    length = sum(part.weight for part in parts)
    dataset, _ = order.locate(np.arange(cycles * length))
    for cycle in dataset.reshape(cycles, length):
        assert [int((cycle == number).sum()) for number in range(len(parts))] == [part.weight for part in parts]


@given(
    parts=st.lists(dataset_orders, min_size=1, max_size=3),
    batch=st.integers(1, 40),
    worlds=st.lists(st.integers(1, 29), min_size=1, max_size=4),
)
@pytest.mark.integration
def test_any_world_size_sees_the_same_samples(parts: list[DatasetOrder], batch: int, worlds: list[int]) -> None:
    """Growing or shrinking the run must not change what a step is made of."""
    order = Order(7, tuple(parts))
    for step, world in enumerate(worlds):
        shares = [order.share(step * batch, batch, rank, world) for rank in range(world)]
        held = sorted(int(p) for share in shares for part in share for p in part)
        assert held == list(range(step * batch, (step + 1) * batch))
        for number in range(len(parts)):
            lengths = [len(share[number]) for share in shares]
            assert max(lengths) - min(lengths) <= 1


@given(parts=st.lists(dataset_orders, min_size=1, max_size=2), start=st.integers(0, 10**12))
def test_a_position_does_not_depend_on_what_is_asked_beside_it(parts: list[DatasetOrder], start: int) -> None:
    """Resuming at T is asking from T: there is no state to replay."""
    order = Order(3, tuple(parts))
    together = order.locate(np.arange(start, start + 9))
    alone = [order.locate(np.array([start + i])) for i in range(9)]
    assert [int(c[0]) for c, _ in alone] == together[0].tolist()
    assert [int(s[0]) for _, s in alone] == together[1].tolist()


def test_a_batch_opens_as_many_granules_as_lanes_and_granules_allow() -> None:
    """In the steady state a step of G samples over G lanes with granules of k opens G / k new granules: no bursts."""
    order = DatasetOrder(num_samples=64 * 32 * 8, granule=32, lanes=64)
    seen: set[int] = set()
    opened = []
    for step in range(100):
        granules = set((order.sample(np.arange(step * 64, (step + 1) * 64), 1, 0) // 32).tolist())
        assert len(granules) == 64
        opened.append(len(granules - seen))
        seen |= granules
    assert set(opened[1:]) == {2}


def test_the_permutation_is_as_even_as_a_random_one() -> None:
    """Chi-squared of where the first tenth of a pass lies, over 200 keys, against uniform: within 5 deviations."""
    n, buckets = 1000, 10
    hits = np.zeros(buckets)
    for key in range(200):
        hits += np.bincount(permute(np.arange(n // 10), n, hash_words(key)) * buckets // n, minlength=buckets)
    expected = hits.sum() / buckets
    chi2 = float(((hits - expected) ** 2 / expected).sum())
    assert chi2 < (buckets - 1) + 5 * np.sqrt(2 * (buckets - 1))


def test_the_order_is_the_one_that_was_released() -> None:
    """A changed order would silently make another experiment of every resumed run. Made by writing ``found``."""
    order = Order(42, (DatasetOrder(num_samples=1000, weight=3, granule=8, lanes=16), DatasetOrder(num_samples=77, weight=2)))
    dataset, sample = order.locate(np.concatenate([np.arange(200), np.arange(10**9, 10**9 + 50)]))
    found = "\n".join(f"{c} {s}" for c, s in zip(dataset, sample, strict=True)) + "\n"
    assert found == GOLDEN.read_text()


def test_memory_and_time_do_not_grow_with_the_dataset() -> None:
    dataset, sample = Order(0, (DatasetOrder(num_samples=10**12, granule=32),)).locate(np.arange(10**15, 10**15 + 100))
    assert len(set(sample.tolist())) == 100
    assert not dataset.any()


def test_chance_belongs_to_a_position() -> None:
    assert rng_at(1, 5).random() == rng_at(1, 5).random()
    assert len({rng_at(1, p).random() for p in range(50)} | {rng_at(2, p).random() for p in range(50)}) == 100
