"""Cross-D convolution as its paper writes it: Fourier transform, rotated frequencies, phase, transform back, middle slice.

Transcribed from equations 1 to 8 and algorithm 1 of arXiv 2411.02441 and from the description of its code, apart from
``crossdim.training.layers``; slow on purpose, float64. Where the paper is silent, the code decides: softmax for each channel,
tanh, epsilon in the norm, first kernel axis is x, real part, frequencies of ``fftfreq``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def answer(x: Tensor, net: Sequence[torch.nn.Module]) -> Tensor:
    """Equation 1: maps of the secondary network, each summed with its own softmax over all pixels."""
    maps = x
    for layer in net:
        maps = layer(maps)
    batch, channels, height, width = maps.shape
    values = []
    for c in range(channels):
        pixels = maps[:, c].reshape(batch, height * width)
        weight = torch.exp(pixels) / torch.exp(pixels).sum(dim=1, keepdim=True)
        values.append((weight * pixels).sum(dim=1))
    return torch.stack(values, dim=1)


def rotation(r: Tensor) -> Tensor:
    """Equations 2 and 3: I + theta K for an axis and an angle, (B, 3, 3)."""
    length = r[:, :3].pow(2).sum(dim=1).sqrt() + 1e-8
    kx, ky, kz = (r[:, i] / length for i in range(3))
    theta = torch.tanh(r[:, 3]) * math.pi / 4
    zero = torch.zeros_like(kx)
    cross = torch.stack([zero, -kz, ky, kz, zero, -kx, -ky, kx, zero], dim=1).reshape(-1, 3, 3)
    return torch.eye(3, dtype=r.dtype, device=r.device) + theta[:, None, None] * cross


def turned(u: Tensor, matrix: Tensor) -> Tensor:
    """Equations 4 to 8: the whole kernel after the phase, complex, (B, O, I, Z, Y, X)."""
    axes = [torch.fft.fftfreq(size, dtype=u.dtype, device=u.device) for size in u.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    frequencies = torch.einsum("bij,jzyx->bizyx", matrix, grid)
    phase = torch.exp(-2j * math.pi * frequencies.sum(dim=1))
    spectrum = torch.fft.fftn(u, dim=(-3, -2, -1))
    return torch.fft.ifftn(spectrum[None] * phase[:, None, None], dim=(-3, -2, -1))


def kernels(u: Tensor, r: Tensor) -> Tensor:
    """Algorithm 1, line 17: the middle slice of the real part, (B, O, I, Y, X)."""
    return turned(u, rotation(r)).real[:, :, :, u.shape[2] // 2]


def shifted_kernels(u: Tensor, shift: Tensor) -> Tensor:
    """The kernels for shifts (B, 3) that are given instead of a rotation: phase exp(-2 pi i s f)."""
    rows = torch.zeros(len(shift), 3, 3, dtype=u.dtype)
    rows[:, 0] = shift
    return turned(u, rows).real[:, :, :, u.shape[2] // 2]


def convolution(x: Tensor, u: Tensor, r: Tensor, stride: int = 1, padding: int = 0, groups: int = 1, dilation: int = 1) -> Tensor:
    """Every sample convolved with its own kernels, one after the other."""
    each = kernels(u, r)
    return torch.cat([functional.conv2d(x[b : b + 1], each[b], None, stride, padding, dilation, groups) for b in range(len(x))])


class CrossDFFT(torch.nn.Module):
    """The layer, for benchmarks and whole networks: batch folded into groups, as published."""

    def __init__(self, weights_3d: Tensor, net: torch.nn.Sequential, stride: int, padding: int) -> None:
        super().__init__()
        self.weights_3d, self.net = torch.nn.Parameter(weights_3d), net
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.nn.Sequential.forward(self.net, x).flatten(2)
        r = (maps * torch.softmax(maps, dim=-1)).sum(dim=-1)
        batch, channels, height, width = x.shape
        each = kernels(self.weights_3d, r).flatten(0, 1)
        folded = x.reshape(1, batch * channels, height, width)
        result = functional.conv2d(folded, each, None, self.stride, self.padding, 1, batch)
        return result.view(batch, -1, *result.shape[2:])


def transcribed(network: torch.nn.Module) -> torch.nn.Module:
    """The network with this layer in place of every Cross-D convolution, in mode ``paper``; changed in place."""
    for name, child in network.named_children():
        if not hasattr(child, "weights_3d"):
            transcribed(child)
            continue
        net = child.rotation_params
        if net is None:  # a kernel of one tap, for which published layers have a net all the same
            net = torch.nn.Sequential(
                torch.nn.Conv2d(child.in_channels, 16, 1),
                torch.nn.BatchNorm2d(16),
                torch.nn.ReLU(inplace=True),
                torch.nn.Conv2d(16, 4, 1),
            ).to(child.weights_3d)
        layer = CrossDFFT(child.weights_3d.detach(), net, child.geometry.stride[1], child.geometry.padding[1])
        setattr(network, name, layer.train(child.training))
    return network
