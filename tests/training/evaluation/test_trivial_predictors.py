"""Predictions that need no training, against sums written out and symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossdim.training.evaluation.trivial_predictors import (
    BLOCK,
    build_hidden_predictors,
    predict_block_mean,
    predict_distance_weighted_mean,
    predict_mean_of_visible,
)

COUNTS = (3, 4, 5)
seeds = st.integers(0, 2**32 - 1)


def _box(seed: int, batch: int = 2, visible: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    patches = torch.from_numpy(rng.random((batch, math.prod(COUNTS), 6)))
    ids = np.stack([np.sort(rng.permutation(math.prod(COUNTS))[:visible]) for _ in range(batch)])
    return patches.float(), torch.from_numpy(ids)


@given(seed=seeds)
def test_the_distance_weighted_mean_is_the_sum_written_out(seed: int) -> None:
    patches, ids = _box(seed)
    found = predict_distance_weighted_mean(patches, ids, COUNTS)
    places = np.stack(np.unravel_index(np.arange(math.prod(COUNTS)), COUNTS), axis=1)
    for one, (values, seen) in enumerate(zip(patches.numpy(), ids.numpy(), strict=True)):
        for number in range(math.prod(COUNTS)):
            others = [n for n in seen if n != number]
            weights = [1 / ((places[n] - places[number]) ** 2).sum() for n in others]
            expected = sum(w * values[n].mean() for w, n in zip(weights, others, strict=True)) / sum(weights)
            assert found[one, number].numpy() == pytest.approx(np.full(6, expected), abs=1e-5)


@given(seed=seeds)
def test_hidden_patches_are_never_looked_at(seed: int) -> None:
    patches, ids = _box(seed)
    spoilt = torch.full_like(patches, torch.nan).scatter(
        1, ids[:, :, None].expand(-1, -1, 6), patches.gather(1, ids[:, :, None].expand(-1, -1, 6))
    )
    for predict in build_hidden_predictors(0.25).values():
        assert torch.equal(predict(spoilt, ids, COUNTS), predict(patches, ids, COUNTS))


def test_all_predict_a_constant_box_and_the_mean_of_visible_is_that_of_each_value() -> None:
    patches, ids = _box(0)
    for predict in (predict_mean_of_visible, predict_distance_weighted_mean):
        assert torch.allclose(predict(torch.full_like(patches, 0.3), ids, COUNTS), torch.tensor(0.3))
    expected = np.stack([values[seen].mean(axis=0) for values, seen in zip(patches.numpy(), ids.numpy(), strict=True)])
    assert np.allclose(predict_mean_of_visible(patches, ids, COUNTS)[:, 11], expected, atol=1e-6)


def test_the_only_visible_patch_is_its_own_mean() -> None:
    patches, ids = _box(1, visible=1)
    found = predict_distance_weighted_mean(patches, ids, COUNTS)
    assert torch.allclose(found, patches.gather(1, ids[:, :, None].expand(-1, -1, 6)).mean(2, keepdim=True).expand_as(found))


def test_a_linear_ramp_is_restored_in_the_middle_of_its_visible_patches() -> None:
    """By symmetry: as far to both sides, the mean is the middle."""
    ramp = torch.arange(5.0)[None, :, None].expand(1, 5, 6)
    found = predict_distance_weighted_mean(ramp, torch.tensor([[0, 1, 3, 4]]), (1, 1, 5))
    assert found[0, 2].tolist() == pytest.approx([2.0] * 6)


@given(seed=seeds)
def test_block_means_are_those_of_numpy_in_every_channel(seed: int) -> None:
    x = np.random.default_rng(seed).random((2, 3, BLOCK, 2 * BLOCK, 2 * BLOCK), np.float32)
    found = predict_block_mean(torch.from_numpy(x)).numpy()
    blocks = x.reshape(2, 3, 1, BLOCK, 2, BLOCK, 2, BLOCK).mean(axis=(3, 5, 7))
    assert np.allclose(found, np.kron(blocks, np.ones((BLOCK,) * 3, np.float32)), atol=1e-6)
