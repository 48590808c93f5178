"""A transposed convolution followed by a 3x3x3 convolution, computed as one.

Without norm or activation between the two they are one linear map: a transposed convolution whose kernel is the correlation
of both kernels (ours). For a stride of 2 from C to C/2 channels a voxel costs 8 C C/2 multiplications, where both together
cost C C + 27 C C/2: 3.6 times fewer. Only for maps so small that computing the kernel costs more, both are computed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def upsample_and_convolve(x_BCDHW: Tensor, up: nn.ConvTranspose3d, conv: nn.Conv3d) -> Tensor:
    """Compute ``conv(up(x))`` in the way that takes fewer multiplications.

    Args:
        x_BCDHW: the feature map to be enlarged.
        up: kernel = stride, no padding.
        conv: kernel 3, stride 1, padding 1.

    Returns:
        (B, channels of ``conv``, D, H, W times the stride of ``up``).
    """
    return _convolve_fused(x_BCDHW, up, conv) if pays(x_BCDHW.shape, up, conv) else conv(up(x_BCDHW))


def pays(shape_BCDHW: torch.Size, up: nn.ConvTranspose3d, conv: nn.Conv3d) -> bool:
    """Whether one convolution, including the computation of its kernel, takes fewer multiplications than two.

    Args:
        shape_BCDHW: of the input.
        up: the transposed convolution.
        conv: the convolution.

    Returns:
        True if the fused form takes fewer multiplications and no axis has only one output voxel.
    """
    # Written out, so that compilers with symbolic sizes can trace it.
    c_in, c_mid, c_out, (s_d, s_h, s_w) = up.in_channels, up.out_channels, conv.out_channels, up.stride
    batch, _, depth, height, width = shape_BCDHW
    volume, kernel = s_d * s_h * s_w, (s_d + 2) * (s_h + 2) * (s_w + 2)
    voxels = batch * depth * height * width * volume
    apart = voxels * (c_in * c_mid + 27 * c_mid * c_out)
    as_one = voxels * c_in * c_out * kernel / volume + 27 * kernel * c_in * c_mid * c_out
    thin = min(depth * s_d, height * s_h, width * s_w) == 1  # both borders in one voxel
    return as_one < apart and not thin


def _convolve_fused(x_BCDHW: Tensor, up: nn.ConvTranspose3d, conv: nn.Conv3d) -> Tensor:
    """Output o of a row reads input i by up's tap a and conv's tap t if o = s i + a - t + 1: fused tap a - t + 2."""
    kernel = F.conv3d(up.weight, conv.weight, padding=2)  # (C_in, C_out, s + 2, ...)
    y = F.conv_transpose3d(x_BCDHW, kernel, conv.bias, stride=up.stride, padding=1)
    return y if up.bias is None else y + _bias(up.bias, conv.weight, y.shape[2:])


def _bias(bias_C: Tensor, weight: Tensor, sides: torch.Size) -> Tensor:
    """The effect of the bias between the two: constant inside, smaller at the border, where the convolution reads zeros."""
    cube = F.conv3d(bias_C.view(1, -1, 1, 1, 1).expand(-1, -1, 3, 3, 3), weight, padding=1)
    for axis, side in enumerate(sides, 2):
        place = torch.ones(side, dtype=torch.long, device=cube.device)
        place[0], place[-1] = 0, 2
        cube = cube.index_select(axis, place)
    return cube
