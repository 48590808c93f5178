"""Quality of restored volumes against numbers of other programs; identities stand in ``test_reconstruction``."""

from __future__ import annotations

import pytest
import torch

from crossdim.training.evaluation.quality import Comparison, psnr, ssim_map


def test_decibels_of_range_three() -> None:
    """A peak of 3 is a peak of 1 after dividing by it."""
    predicted, true = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).double() / 3, torch.tensor([[3.0, 2.0], [1.0, 0.0]]).double() / 3
    assert psnr(float((predicted - true).square().mean())) == pytest.approx(2.55272505103306, abs=1e-12)


def test_likeness_of_constants() -> None:
    """Closed form, whatever the window."""
    one, two = torch.full((2, 11, 12, 13), 0.5, dtype=torch.float64), torch.full((2, 11, 12, 13), 0.6, dtype=torch.float64)
    likeness = ssim_map(one[0], two[0])
    assert likeness.shape == (1, 2, 3)
    assert likeness.numpy() == pytest.approx(0.9836092443861661, abs=1e-12)


def test_waves() -> None:
    """Windows inside the volume, as MONAI 1.6.1 takes them; torchmetrics pads (0.794877), slices alone give 0.666530.

    The number is scikit-image's, cropped, and the same from one-dimensional correlations of SciPy.
    """
    z, y, x = torch.meshgrid(*(torch.arange(24, dtype=torch.float64) for _ in range(3)), indexing="ij")
    true = (0.5 + 0.25 * (0.3 * z).sin() + 0.15 * (0.5 * y + 0.2 * x).cos()).clamp(0, 1)
    restored = (true + 0.1 * (1.7 * x + 0.9 * z).sin()).clamp(0, 1)
    comparison = Comparison()
    comparison.add(restored, true)
    assert comparison.psnr == pytest.approx(23.01015, abs=5e-6)
    assert comparison.ssim == pytest.approx(0.79414201917, abs=1e-10)
