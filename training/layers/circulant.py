"""Fractional circular shifts of small kernels, as real matrices.

Multiplying the spectrum of K taps by exp(-2 pi i s f), f = fftfreq(K), is a circular shift by s taps with trigonometric
interpolation, which is multiplication with a circulant matrix. So transform, phase and inverse transform are K x K numbers.

Source: derived from equations 4 to 8 of Cross-D Conv (arXiv 2411.02441); the paper and its code use Fourier transforms.
Axes: B batch, Z Y X depth, row and column of a kernel, P = Y X taps of a plane, Q = Z Y X taps of a kernel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crossdim.training.layers.conv_geometry import Triple

#: One term of a shift followed by taking the middle slice: weights of the depth slices (B, Z), then a map of planes (B, P, P).
Term = tuple[Tensor, Tensor]


def build_circulant(shift_B: Tensor, taps: int) -> tuple[Tensor, Tensor]:
    """Build the matrix that shifts a row of taps, of which the Nyquist frequency makes a part imaginary.

    The imaginary part is zero for an odd number of taps; then the real part is orthogonal.

    Args:
        shift_B: (B,), in taps, float32 or float64; may be fractional.
        taps: K.

    Returns:
        Real and imaginary part, (B, K, K) each.
    """
    n = torch.arange(taps, device=shift_B.device)
    apart = n[:, None] - n[None, :]
    t = apart.to(shift_B.dtype) - shift_B[:, None, None]
    wave = torch.ones_like(t)
    for frequency in range(1, (taps + 1) // 2):
        wave = wave + 2 * torch.cos(2 * math.pi * frequency / taps * t)
    if taps % 2:
        return wave / taps, torch.zeros_like(t)
    sign = (1 - 2 * (apart % 2)).to(shift_B.dtype)
    phase = math.pi * shift_B[:, None, None]
    return (wave + sign * torch.cos(phase)) / taps, sign * torch.sin(phase) / taps


def build_middle_terms(shift_B3: Tensor, kernel: Triple) -> list[Term]:
    """Build the map that shifts a kernel by (s0, s1, s2) taps and takes its middle slice, as terms to be summed.

    With circulants S = a + i b of the three axes, the real part of their product is
    a0 (a1 a2 - b1 b2) - b0 (a1 b2 + b1 a2): four products, of which one is left if no axis has an even number of taps.

    Args:
        shift_B3: (B, 3), shifts of each sample, (depth, row, column), in taps.
        kernel: taps (Z, Y, X).

    Returns:
        One or two terms: weights of the depth slices (B, Z), and a map of planes (B, Y X, Y X).
    """
    (a0, b0), (a1, b1), (a2, b2) = (build_circulant(shift_B3[:, axis], taps) for axis, taps in enumerate(kernel))
    middle = kernel[0] // 2
    if all(taps % 2 for taps in kernel):
        return [(a0[:, middle], _product(a1, a2))]
    return [(a0[:, middle], _product(a1, a2) - _product(b1, b2)), (-b0[:, middle], _product(a1, b2) + _product(b1, a2))]


def build_mixing(terms: list[Term]) -> Tensor:
    """The terms as one matrix from the taps of a kernel to those of its plane, (B, P, Q)."""
    return torch.stack([(row[:, None, :, None] * plane[:, :, None, :]).flatten(2) for row, plane in terms]).sum(0)


def _product(rows: Tensor, columns: Tensor) -> Tensor:
    """Kronecker product sample by sample, (B, Y X, Y X)."""
    return (rows[:, :, None, :, None] * columns[:, None, :, None, :]).flatten(3, 4).flatten(1, 2)
