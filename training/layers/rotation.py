"""The small network that predicts, for each image, how the kernel of a Cross-D convolution is rotated; and what rotating means.

Source: Cross-D Conv (arXiv 2411.02441), equations 1 to 6; the network's layers are only in its code.
Axes: B batch, C channel, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

HIDDEN_CHANNELS = 16  # code
LARGEST_ANGLE = math.pi / 4  # paper
#: Keeps the axis finite if the network predicts zero; code.
EPSILON = 1e-8


class RotationNet(nn.Sequential):
    """(B, C, H, W) -> (B, 4): an axis, not normalised, and an angle, not limited.

    Two 1 x 1 convolutions with batch norm and ReLU between them, then a mean over pixels, weighted by each channel's
    softmax over the pixels (code; the paper does not say that channels are weighted separately).
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, HIDDEN_CHANNELS, 1),
            nn.BatchNorm2d(HIDDEN_CHANNELS),
            nn.ReLU(inplace=True),
            nn.Conv2d(HIDDEN_CHANNELS, 4, 1),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """One prediction per sample; in training mode, batch norm makes it depend on the other samples of the batch."""
        map_B4HW: Tensor = super().forward(x_BCHW)  # type: ignore[no-untyped-call]
        return boltzmann_mean(map_B4HW)

    @torch.no_grad()
    def reset_to_zero_angle(self) -> None:
        """Make every image predict angle 0 about the axis that was drawn at initialisation, so that kernels start unrotated.

        The axis must not be zero: at zero neither axis nor angle has a gradient. Ours.
        """
        last = self[3]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        last.weight.zero_()
        last.bias[3] = 0


def boltzmann_mean(map_BCHW: Tensor) -> Tensor:
    """(B, C): mean over pixels, each weighted by the softmax of its own value; between mean and maximum."""
    pixels = map_BCHW.flatten(2)
    pixels = pixels if pixels.dtype == torch.float64 else pixels.float()
    return (pixels * pixels.softmax(-1)).sum(-1)


def shift_of(answer_B4: Tensor) -> Tensor:
    """The circular shift in taps, (B, 3): depth, row, column, that equals the paper's rotation of frequencies.

    The phase of equation 6 depends on the sum of the rotated frequencies R f only, and 1 R f = (R' 1) f: a shift by R' 1.
    With the rotation linear in the angle, R = I + angle [axis]x, it is 1 - angle (axis x 1). Angle 0 is a shift by one tap
    along every axis, and the three always sum to 3, so two numbers determine it. Derived.

    Args:
        answer_B4: of :class:`RotationNet`; used as float32, or float64 if it is.
    """
    answer = answer_B4 if answer_B4.dtype == torch.float64 else answer_B4.float()
    axis = answer[:, :3] / (torch.linalg.vector_norm(answer[:, :3], dim=1, keepdim=True) + EPSILON)
    angle = torch.tanh(answer[:, 3:]) * LARGEST_ANGLE
    shift: Tensor = 1 + angle * (axis.roll(1, dims=1) - axis.roll(-1, dims=1))
    return shift
