"""Measures of collapse against closed forms and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special

from crossdim.training.objectives.collapse import alignment, dimensions, evenness, rank_me, uniformity

RNG = np.random.default_rng(0)


def _with_values(values: list[float], samples: int, channels: int) -> torch.Tensor:
    """Features about a mean far from 0 whose singular values, without it, are ``values``."""
    centred = RNG.normal(size=(samples, samples))
    left, _ = np.linalg.qr(centred - centred.mean(axis=0))
    right, _ = np.linalg.qr(RNG.normal(size=(channels, channels)))
    count = len(values)
    return torch.from_numpy(left[:, :count] * values @ right[:, :count].T + 5.0)


def test_an_isotropic_gaussian_has_as_many_dimensions_as_channels() -> None:
    """Of 4000 samples in 12 channels; the sampling error of the eigenvalues takes 12 / (1 + 13/4000) to 11.96."""
    features = torch.from_numpy(RNG.normal(3.0, 2.0, (4000, 12)))
    assert dimensions(features).item() == pytest.approx(12, abs=0.1)
    assert rank_me(features).item() == pytest.approx(12, abs=0.05)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_data_of_a_rank_have_so_many_dimensions(rank: int) -> None:
    """Equal singular values: both measures are the rank, exactly; 1 is a line."""
    features = _with_values([2.0] * rank, samples=30, channels=16)
    assert dimensions(features).item() == pytest.approx(rank)
    assert rank_me(features).item() == pytest.approx(rank, rel=1e-6)


def test_singular_values_of_three_to_one_have_the_dimensions_of_the_formulas() -> None:
    """Variances 9 and 1: 100 / 82. Shares 3/4 and 1/4: exp(3/4 log(4/3) + 1/4 log 4)."""
    features = _with_values([3.0, 1.0], samples=20, channels=8)
    assert dimensions(features).item() == pytest.approx(100 / 82)
    assert rank_me(features).item() == pytest.approx((4 / 3) ** 0.75 * 4**0.25, rel=1e-6)


def test_numpy_finds_the_same_dimensions() -> None:
    features = RNG.normal(size=(25, 40)) @ RNG.normal(size=(40, 40))
    centred = features - features.mean(axis=0)
    variances = np.linalg.eigvalsh(np.cov(centred, rowvar=False))
    shares = np.linalg.svd(centred, compute_uv=False)
    shares = shares / shares.sum()
    assert dimensions(torch.from_numpy(features)).item() == pytest.approx(variances.sum() ** 2 / (variances**2).sum())
    assert rank_me(torch.from_numpy(features)).item() == pytest.approx(np.exp(special.entr(shares).sum()))


def test_features_of_few_samples_have_at_most_one_dimension_less() -> None:
    features = torch.from_numpy(RNG.normal(size=(6, 500)))
    assert 4.5 < dimensions(features).item() <= rank_me(features).item() <= 5


@pytest.mark.parametrize("measure", [dimensions, rank_me])
def test_a_point_has_no_dimension_even_if_it_is_rounded(measure: object) -> None:
    """Rounding of float32 varies in every direction: about 15 dimensions that are none."""
    assert callable(measure)
    assert measure(torch.full((40, 16), 0.1)).item() == 0
    assert measure(torch.zeros(40, 16)).item() == 0
    noisy = torch.full((40, 16), 0.1) * (1 + 1e-7 * torch.randn(40, 16))
    assert measure(noisy).item() == 0


def test_a_weak_direction_beside_a_strong_one_is_seen_by_rank_me() -> None:
    """Ten directions of a tenth of the strongest: half of all deviation, and a hundredth of the variance each."""
    features = _with_values([1.0] + [0.1] * 10, samples=30, channels=16)
    assert dimensions(features).item() < 1.25
    assert rank_me(features).item() > 6


def test_evenness_is_blind_to_a_line() -> None:
    spread = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    line = torch.randn(400, 1, generator=torch.Generator().manual_seed(0)).expand(400, 16)
    assert evenness(spread).item() == pytest.approx(1, abs=0.05)
    assert evenness(torch.ones(400, 16)).item() == 0
    assert evenness(line).item() == pytest.approx(1, abs=0.05)
    assert rank_me(line).item() == pytest.approx(1, abs=1e-4)


def test_uniformity_of_a_circle_is_the_closed_form() -> None:
    """log(mean of exp(-2 |u - v|^2)) = log(exp(-4) I0(4)) for the uniform circle, -1.574; a point has 0."""
    angles = torch.arange(4000, dtype=torch.float64) * (2 * math.pi / 4000)
    circle = 7 * torch.stack([angles.cos(), angles.sin()], dim=1)  # lengths do not matter
    assert uniformity(circle[::4]).item() == pytest.approx(math.log(special.i0e(4)), abs=5e-3)
    assert uniformity(torch.ones(9, 4)).item() == 0


def test_uniformity_of_two_opposite_points_is_by_hand() -> None:
    """Of six pairs of four points, two are equal and four at distance 2: log((2 + 4 exp(-8)) / 6)."""
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    assert uniformity(points).item() == pytest.approx(math.log((2 + 4 * math.exp(-8)) / 6))


def test_alignment_is_the_squared_distance_of_pairs() -> None:
    one = torch.eye(3)
    assert alignment(one, 5 * one).item() == pytest.approx(0)
    assert alignment(one, one.roll(1, 0)).item() == pytest.approx(2)
    assert alignment(one, -one).item() == pytest.approx(4)
