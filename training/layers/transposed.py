"""Transposed convolution with 2D weights, for images and volumes.

Axes: B batch, C channel, D depth, H height, W width, I input channel, O output channel of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.layers.acs import thirds
from crossdim.training.layers.conv_geometry import Triple, triple
from crossdim.training.layers.kernel_inflation import axes_of, inflate_kernel


class PlaneConvTranspose(nn.Module):
    """A transposed 3D convolution whose kernel is zero except for its middle plane; for images, the transposed 2D convolution.

    The published ACS code has none, because three separate transposed convolutions give three different sizes. In one cube
    they do not.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: taps, one number.
        stride: one number or (D, H, W).
        padding: one number or (D, H, W).
        output_padding: one number or (D, H, W).
        dilation: one number or (D, H, W).
        groups: as in ``torch.nn.ConvTranspose2d``.
        bias: whether there is one.
        split: output channels whose plane is across depth, rows and columns; thirds if not given.
    """

    across: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        output_padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        split: Triple | None = None,
    ) -> None:
        super().__init__()
        like = nn.ConvTranspose2d(in_channels, out_channels, kernel_size, groups=groups, bias=bias)
        self.weight = like.weight
        self.register_parameter("bias", None if like.bias is None else nn.Parameter(like.bias.detach()))
        self.stride, self.padding, self.output_padding = triple(stride), triple(padding), triple(output_padding)
        self.dilation, self.groups = triple(dilation), groups
        self.split = thirds(out_channels) if split is None else split
        if sum(self.split) != out_channels or min(self.split) < 0:
            raise GeometryError(f"the planes share {out_channels} output channels; found {self.split}")
        # The first axis of the weight is the input channel, which determines the group; the second counts within the group.
        of_groups = axes_of(self.split).view(groups, -1).repeat_interleave(in_channels // groups, dim=0)
        self.register_buffer("across", of_groups, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, D, H, W) -> the same rank."""
        if x.ndim == 4:
            return functional.conv_transpose2d(
                x,
                self.weight,
                self.bias,
                self.stride[1:],
                self.padding[1:],
                self.output_padding[1:],
                self.groups,
                self.dilation[1:],
            )
        kernel = inflate_kernel(self.weight, "acs", depth=self.weight.shape[2], across=self.across)
        return functional.conv_transpose3d(
            x, kernel, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


class CentreConvTranspose(nn.Module):
    """A transposed convolution with a 3D kernel, whose middle slice is used for images: Cross-D at angle 0.

    The paper has no transposed convolution. This one is not rotated, so it needs no rotation net; ours.

    Args:
        like: geometry and weights; the kernel becomes (I, O, K, K, K), with the 2D one in its middle slice.
    """

    bias: nn.Parameter | None

    def __init__(self, like: PlaneConvTranspose) -> None:
        super().__init__()
        self.stride, self.padding, self.output_padding = like.stride, like.padding, like.output_padding
        self.dilation, self.groups = like.dilation, like.groups
        with torch.no_grad():
            self.weights_3d = nn.Parameter(inflate_kernel(like.weight, "centre", depth=like.weight.shape[2]))
        self.register_parameter("bias", like.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, D, H, W) -> the same rank."""
        if x.ndim == 5:
            return functional.conv_transpose3d(
                x,
                self.weights_3d,
                self.bias,
                self.stride,
                self.padding,
                self.output_padding,
                self.groups,
                self.dilation,
            )
        middle = self.weights_3d[:, :, self.weights_3d.shape[2] // 2]
        return functional.conv_transpose2d(
            x,
            middle,
            self.bias,
            self.stride[1:],
            self.padding[1:],
            self.output_padding[1:],
            self.groups,
            self.dilation[1:],
        )
