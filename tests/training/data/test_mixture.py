"""Mixtures: exact in every cycle, at any position, whatever finite weights say; refused in the user's words otherwise."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.training.data import mixture as module
from crossdim.training.data.mixing import Mixing
from crossdim.training.data.mixture import LONGEST_CYCLE, LONGEST_TABLE, Mixture, integer_weights
from crossdim.training.data.order import DatasetOrder, Order


def _walked(weights: tuple[int, ...]) -> list[int]:
    """Smooth weighted round-robin, step by step: what runs of before were ordered by."""
    credit, slots = np.zeros(len(weights), int), []
    for _ in range(sum(weights)):
        credit += weights
        slots.append(int(credit.argmax()))
        credit[slots[-1]] -= sum(weights)
    return slots


@given(weights=st.lists(st.integers(1, 40), min_size=1, max_size=5).map(tuple))
def test_short_cycles_are_the_smooth_round_robin_of_before(weights: tuple[int, ...]) -> None:
    dataset, before = Mixture(weights).at(np.arange(sum(weights)))
    walked = _walked(weights)
    assert dataset.tolist() == walked
    assert before.tolist() == [walked[:slot].count(number) for slot, number in enumerate(walked)]


@given(weights=st.lists(st.integers(1, 60), min_size=1, max_size=5).map(tuple))
def test_long_cycles_hold_every_dataset_as_often_as_its_weight_and_evenly(weights: tuple[int, ...]) -> None:
    """The arithmetic of long cycles, on short ones, slot by slot; no stretch of a pair is off by a whole slot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONGEST_TABLE", 0)
        mixture, slots = Mixture(weights), np.arange(sum(weights))
        dataset, before = mixture.at(slots)
        fewest = mixture.counts(7)[:, 0]
    found = dataset.tolist()
    assert tuple(map(found.count, range(len(weights)))) == weights
    assert before.tolist() == [found[:slot].count(number) for slot, number in enumerate(found)]
    if len(weights) == 2:
        assert all(abs(found[:slot].count(0) - Fraction(slot * weights[0], sum(weights))) < 1 for slot in slots)
    windows = [(found * 8)[start : start + 7] for start in range(len(found))]
    assert all(min(window.count(number) for window in windows) >= fewest[number] for number in range(len(weights)))


@pytest.mark.parametrize(
    "weights", [[1_500_000, 1_000_003], [1e9, 2e3], [123_456_789, 987_654_321, 555_555_557], [0.12345678901234567, 1.0], [1e5, 1]]
)
def test_weights_of_any_size_start_in_a_second(weights: list[float]) -> None:
    """As counts of samples, or with all the digits of a float: from weights to the first and to a late step."""
    began = time.monotonic()
    integers = integer_weights(weights)
    order = Order(0, tuple(DatasetOrder(num_samples=1000, weight=weight) for weight in integers))
    for mode in ("paired", "joint"):
        Mixing(mode=mode).smallest_batch(order, 256, 16)
    for first in (0, 10**15):
        shares = [order.share(first, 256, rank, 16) for rank in range(16)]
        assert sum(len(part) for share in shares for part in share) == 256
        order.locate(np.arange(first, first + 256))
    assert time.monotonic() - began < 1
    for integer, weight in zip(integers, weights, strict=True):
        assert integer / sum(integers) == pytest.approx(weight / sum(weights), rel=1e-3)


def test_the_counts_of_a_long_cycle_are_exact() -> None:
    """A cycle of 2,500,003 slots, whole, from anywhere."""
    weights = integer_weights([1_500_000, 1_000_003])
    assert weights == [1_500_000, 1_000_003]
    assert sum(weights) > LONGEST_TABLE
    order = Order(0, tuple(DatasetOrder(num_samples=10**6, weight=weight) for weight in weights))
    found = order.dataset_at(np.arange(10**12 + 17, 10**12 + 17 + sum(weights)))
    assert np.bincount(found).tolist() == weights


def test_every_pass_of_a_dataset_in_a_long_cycle_holds_every_sample_once() -> None:
    order = Order(3, (DatasetOrder(num_samples=1000, weight=1_500_000), DatasetOrder(num_samples=77, weight=1_000_003)))
    dataset, sample = order.locate(np.arange(50_000))
    for number, size in ((0, 1000), (1, 77)):
        seen = sample[dataset == number]
        for epoch in range(len(seen) // size):
            assert sorted(seen[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))


def test_ordinary_weights_become_the_smallest_integers() -> None:
    assert integer_weights([0.6, 0.4]) == [3, 2]
    assert integer_weights([1.0, 1.0, 1.0]) == [1, 1, 1]
    assert integer_weights([0.55, 0.30, 0.15]) == [11, 6, 3]
    assert integer_weights([1 / 3, 2 / 3]) == [1, 2]
    assert integer_weights([0.333, 0.667]) == [333, 667]
    assert integer_weights([1e300, 1e300]) == [1, 1]
    assert integer_weights([1e-300, 2e-300]) == [1, 2]
    assert integer_weights([5e-324]) == [1]


@pytest.mark.parametrize("weights", [[0.0006, 1.0], [0.0001, 0.9999], [0.0014, 1.0]])
def test_a_small_weight_is_not_rounded_to_another_share(weights: list[float]) -> None:
    """With denominators of at most 1,000 a weight of 0.0006 would count for 0.001, and 0.0001 for nothing."""
    integers = integer_weights(weights)
    assert integers[0] / integers[1] == pytest.approx(weights[0] / weights[1], rel=1e-3)


@given(weights=st.lists(st.floats(1e-2, 1e3), min_size=1, max_size=4))
def test_shares_are_what_was_asked_for_within_a_thousandth(weights: list[float]) -> None:
    integers = integer_weights(weights)
    assert math.gcd(*integers) == 1
    assert sum(integers) <= LONGEST_CYCLE
    for integer, weight in zip(integers, weights, strict=True):
        assert integer / sum(integers) == pytest.approx(weight / sum(weights), rel=2e-3)


@pytest.mark.parametrize("weight", [0.0, -0.0, -1.0, math.inf, -math.inf, math.nan])
def test_what_is_no_positive_number_is_refused(weight: float) -> None:
    with pytest.raises(RunError, match=r"mixture weights are positive numbers; found 1, "):
        integer_weights([1.0, weight])


@pytest.mark.parametrize("weights", [[1e300, 1.0], [1e-300, 1.0], [5e-324, 1.7e308], [1e9, 1.0]])
def test_a_share_that_is_next_to_nothing_is_refused_with_what_to_do(weights: list[float]) -> None:
    with pytest.raises(RunError, match="larger weight, or leave it out"):
        integer_weights(weights)


@pytest.mark.parametrize("weight", ["0", "-1", "inf", "nan", "1e-300"])
def test_a_weight_that_cannot_be_is_wrong_use(
    weight: str, image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a command: one line with what was typed, at once."""
    out = str(tmp_path / "run")
    line = [
        "pretrain",
        "--recipe",
        "cdssl-p3d:tiny",
        "--data",
        f"{image_data.url}:{weight}",
        f"{volume_data.url}:2",
        "--out",
        out,
    ]
    assert main([*line, "--workers", "0"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: --data URL:WEIGHT: ")
    assert f"{float(weight):g}" in shown
    assert shown.count("\n") == 1
