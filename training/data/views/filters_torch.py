"""Filters on the device: unit range, Gaussian blur with a separate width for every view, normalisation."""

# Axes: B batch, N views of all samples, L length, K taps of a filter.
from __future__ import annotations

import torch
from torch import Tensor

#: How many deviations a Gaussian reaches: SciPy's ``truncate``.
TRUNCATE = 4.0


def to_unit_range(source: Tensor, scale_B2: Tensor) -> Tensor:
    """Convert stored values to float32 in unit range, as :meth:`crossdim.storage_schema.sample.Scaling.unit` does.

    Args:
        source: (B, ...) stored values.
        scale_B2: factor and summand of each sample, see :meth:`Scaling.unit_factors`.

    Returns:
        (B, ...), float32.
    """
    factor, summand = (scale_B2[:, number].view(-1, *[1] * (source.ndim - 1)) for number in range(2))
    return source.to(torch.float32) * factor + summand


def build_gaussian_matrices(sigma_N: Tensor, length: int, largest: float) -> Tensor:
    """Matrices that blur along an axis.

    A row holds the taps of one output, reflected at the ends of the axis (d c b a | a b c d | d c b a) and cut off beyond 4
    deviations, rounded: SciPy's ``gaussian_filter``. A deviation of 0 gives the identity. With matrices, every view may have its
    own width, borders need no padding, and no convolution algorithm of lower precision is chosen.

    Args:
        sigma_N: deviations, float64.
        length: of the axis.
        largest: bound of the deviations; fixes the number of taps without reading from the device.

    Returns:
        (N, L, L) float32.
    """
    reach = int(TRUNCATE * largest + 0.5)
    taps_K = torch.arange(-reach, reach + 1, device=sigma_N.device)
    sigma_N1 = sigma_N[:, None].clamp_min(1e-9)
    weights_NK = torch.exp(-0.5 * (taps_K / sigma_N1) ** 2) * (taps_K.abs() <= torch.floor(TRUNCATE * sigma_N1 + 0.5))
    weights_NK = weights_NK / weights_NK.sum(1, keepdim=True)
    places_L = torch.arange(length, device=sigma_N.device)
    read_KL = (places_L + taps_K[:, None]) % (2 * length)
    read_KL = torch.minimum(read_KL, 2 * length - 1 - read_KL)
    reads_KLL = (read_KL[:, :, None] == places_L).to(weights_NK.dtype)
    return (weights_NK @ reads_KLL.flatten(1)).view(-1, length, length).to(torch.float32)


def normalise(views: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Scale to zero mean and unit deviation over some axes; constant views become zeros.

    Args:
        views: any shape.
        axes: of one view, over which mean and deviation are taken.

    Returns:
        The same shape.
    """
    deviation = views.std(dim=axes, correction=0, keepdim=True)
    return (views - views.mean(dim=axes, keepdim=True)) / torch.where(deviation > 1e-6, deviation, 1.0)
