"""The PCRLv2 objective against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from crossdim.training.config.optimizers import Sgd
from crossdim.training.methods.base import Step
from crossdim.training.objectives.pcrlv2 import (
    Pair,
    draw_levels,
    local_similarity,
    restoration,
    scale_weight,
    similarity,
)


def _pair(z: torch.Tensor, q: torch.Tensor) -> Pair:
    return Pair(z.double(), q.double())


def test_similarity_is_minus_one_for_agreement_one_for_opposition_and_zero_at_right_angles() -> None:
    """With the invariance to length."""
    z = torch.randn(5, 8, dtype=torch.float64)
    assert similarity(_pair(z, z), _pair(z, z)).item() == pytest.approx(-1)
    assert similarity(_pair(z, -z), _pair(z, -z)).item() == pytest.approx(1)
    a, b = torch.eye(2, dtype=torch.float64)
    assert similarity(Pair(a[None], a[None]), Pair(b[None], b[None])).item() == pytest.approx(0)
    assert similarity(_pair(3 * z, 7 * z), _pair(z, 0.1 * z)).item() == pytest.approx(-1)


def test_the_compared_projection_gets_no_gradient() -> None:
    """Taking away the stop would let both views collapse onto each other."""
    z = torch.randn(4, 6, requires_grad=True)
    q = torch.randn(4, 6, requires_grad=True)
    similarity(Pair(torch.randn(4, 6), q), Pair(z, torch.randn(4, 6))).backward()
    assert z.grad is None
    assert q.grad is not None
    assert q.grad.abs().sum() > 0


def test_similarity_is_symmetric() -> None:
    a, b = (_pair(torch.randn(3, 4), torch.randn(3, 4)) for _ in range(2))
    assert similarity(a, b).item() == pytest.approx(similarity(b, a).item(), abs=1e-15)


def test_the_scale_weight_and_the_rate_fall_by_half_a_cosine() -> None:
    """Values at epochs 0, 60, 120, 180 and 240 of 240."""
    expected = [1.0, 0.853553, 0.5, 0.146447, 0.0]
    assert [scale_weight(e / 240) for e in (0, 60, 120, 180, 240)] == pytest.approx(expected, abs=1e-6)
    assert [Sgd(lr=1.0).learning_rate(e, 240) for e in (0, 60, 120, 180, 240)] == pytest.approx(expected, abs=1e-6)


def test_restoration_of_grey_against_black_and_white_is_a_quarter() -> None:
    clean = torch.tensor([0.0, 1.0, 1.0, 0.0])
    grey = torch.full((4,), 0.5)
    assert restoration(grey, clean).item() == 0.25
    assert scale_weight(0.5) * restoration(grey, clean).item() == pytest.approx(0.125)


def test_equal_local_terms_give_their_value() -> None:
    """The normaliser is 2 x 6, not 6."""
    z = torch.randn(3, 5)
    levels = [_pair(z, z)] * 3
    for mode in ("random", "all"):
        drawn = draw_levels(np.random.default_rng(0), 3, 6, mode)
        assert local_similarity(levels, levels, [levels] * 6, drawn).item() == pytest.approx(-1)


def test_one_level_or_every_level_is_compared() -> None:
    one = draw_levels(np.random.default_rng(0), 3, 6, "random")
    assert [len(levels) for pair in one.local for levels in pair] == [1] * 12
    assert len(one.compared) == 1
    assert one.projected == {*one.compared, *(levels[0] for pair in one.local for levels in pair)}
    every = draw_levels(np.random.default_rng(0), 3, 6, "all")
    assert (every.compared, every.projected, len(every.local)) == ((0, 1, 2), {0, 1, 2}, 6)


def test_levels_are_drawn_evenly_and_alike_on_every_rank() -> None:
    """30,000 draws over 3 levels, each within 10,000 +- 400; equal (seed, step) gives equal levels."""
    draws = np.array([Step(index=i, total=1, seed=3).rng("image").integers(3) for i in range(30_000)])
    assert (np.abs(np.bincount(draws, minlength=3) - 10_000) < 400).all()
    assert Step(index=9, total=1, seed=3).rng("image").random() == Step(index=9, total=50, seed=3).rng("image").random()


@pytest.mark.parametrize(("count", "learns"), [(2, False), (3, True)])
def test_batch_norm_of_two_samples_passes_no_gradient(count: int, learns: bool) -> None:
    """Why a rank needs three: of two samples every channel becomes 1 and -1, whatever the network says."""
    features = torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    z = nn.BatchNorm1d(4, eps=1e-12).double()(features)
    [gradient] = torch.autograd.grad((z * torch.randn_like(z)).sum(), [features])
    assert (gradient.abs().max().item() > 1e-6) is learns


def test_identical_samples_give_a_number_and_no_nan() -> None:
    """Batch norm maps equal rows to its bias, 0 at the start, and the cosine of zeros is 0 by its epsilon.

    Powers of two have exact means. For other values float32 leaves 1e-5 of rounding, whose cosine is finite, not 0.
    """
    z = nn.BatchNorm1d(4)(torch.ones(4, 4) * torch.tensor([1.0, 2.0, 0.0, 4.0]))
    assert similarity(Pair(z, z), Pair(z, z)).item() == 0
    rounded = nn.BatchNorm1d(4)(torch.ones(5, 4) * torch.tensor([0.1, 0.2, 0.3, 0.7]))
    assert math.isfinite(similarity(Pair(rounded, rounded), Pair(rounded, rounded)).item())
