"""PSNR and SSIM of a reconstructed volume, computed slab by slab, so that no volume is in memory as a whole.

PSNR has peak 1 (unit range). SSIM is three-dimensional: a Gaussian window of 11 voxels a side, sigma 1.5, range 1, population
covariances, mean over all windows that lie inside the volume (Wang et al., 2004, with the window in 3D).
LPIPS is not computed: it needs a pretrained 2D network, which is not available offline.

Axes: D depth, H height, W width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from crossdim.storage_schema.errors import GeometryError

WINDOW, SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
#: Smallest mean squared error, so that PSNR is at most 100 dB.
FLOOR = 1e-10


def psnr(mean_squared_error: float) -> float:
    """Decibels for peak 1."""
    return -10 * math.log10(max(mean_squared_error, FLOOR))


def _gaussian_means(maps_MDHW: Tensor) -> Tensor:
    """Gaussian means over every window that fits, one axis after the other."""
    x = torch.arange(WINDOW, dtype=maps_MDHW.dtype, device=maps_MDHW.device) - WINDOW // 2
    kernel = (-0.5 * (x / SIGMA) ** 2).exp()
    kernel = kernel / kernel.sum()
    blurred = maps_MDHW[:, None]
    for axis in range(3):
        blurred = F.conv3d(blurred, kernel.view([1, 1, *(-1 if a == axis else 1 for a in range(3))]))
    return blurred[:, 0]


def ssim_map(one_DHW: Tensor, two_DHW: Tensor) -> Tensor:
    """Structural similarity of every window that fits.

    Args:
        one_DHW: unit range.
        two_DHW: the same shape.

    Returns:
        Each side is 10 shorter.

    Raises:
        GeometryError: if no window fits.
    """
    if one_DHW.shape != two_DHW.shape or one_DHW.ndim != 3 or min(one_DHW.shape) < WINDOW:
        raise GeometryError(
            f"SSIM compares two volumes (D, H, W) of at least {WINDOW} voxels a side; found {tuple(one_DHW.shape)} and "
            f"{tuple(two_DHW.shape)}"
        )
    maps = torch.stack([one_DHW, two_DHW, one_DHW * one_DHW, two_DHW * two_DHW, one_DHW * two_DHW])
    mean1, mean2, square1, square2, product = _gaussian_means(maps)
    variances = square1 - mean1 * mean1 + square2 - mean2 * mean2
    covariance = product - mean1 * mean2
    likeness = (2 * mean1 * mean2 + _C1) * (2 * covariance + _C2)
    result: Tensor = likeness / ((mean1 * mean1 + mean2 * mean2 + _C1) * (variances + _C2))
    return result


class Comparison:
    """PSNR and SSIM of a volume that comes in slabs, first slice first; only the last 10 slices are kept."""

    def __init__(self) -> None:
        self._squares, self._voxels = 0.0, 0
        self._likeness, self._windows = 0.0, 0
        self._kept: tuple[Tensor, Tensor] | None = None

    def add(self, restored_DHW: Tensor, true_DHW: Tensor) -> None:
        """Add the next slab.

        Args:
            restored_DHW: the reconstruction, unit range.
            true_DHW: the same slices of the original.
        """
        self._squares += float((restored_DHW - true_DHW).double().square().sum())
        self._voxels += true_DHW.numel()
        one, two = restored_DHW, true_DHW
        if self._kept is not None:
            one, two = torch.cat([self._kept[0], one]), torch.cat([self._kept[1], two])
        if len(one) >= WINDOW:
            likeness = ssim_map(one, two)
            self._likeness += float(likeness.double().sum())
            self._windows += likeness.numel()
        self._kept = one[-(WINDOW - 1) :].clone(), two[-(WINDOW - 1) :].clone()

    @property
    def psnr(self) -> float:
        """Decibels, over all voxels so far."""
        return psnr(self._squares / self._voxels)

    @property
    def ssim(self) -> float:
        """Mean over all windows so far; NaN if none has fitted."""
        return self._likeness / self._windows if self._windows else math.nan
