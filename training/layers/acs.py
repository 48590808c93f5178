"""ACS convolution: 2D kernels that convolve volumes axially, coronally and sagittally, each for a third of the output channels.

Source: Yang et al., Reinventing 2D Convolutions for 3D Images (arXiv 1911.10477). Defined here as a 3D convolution whose
kernel is zero except for its middle plane, across depth, rows or columns. The published code differs from that with
dilation, and with groups that are neither 1 nor one per channel. Axes: B batch, C channel, D depth, H height, W width, O
output channel, I input channel of a group.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.layers.conv_geometry import ConvGeometry, PaddingMode, Triple, triple


def thirds(channels: int) -> Triple:
    """Output channels of the axial, coronal and sagittal planes: as equal as possible, the first ones larger (code)."""
    return (channels + 2) // 3, (channels + 1) // 3, channels // 3


def plane_conv(x_BCDHW: Tensor, weight_OIKK: Tensor, across: int, geometry: ConvGeometry) -> Tensor:
    """Convolve volumes with a 3D kernel that is zero except for its middle plane.

    Args:
        x_BCDHW: volumes, already padded unless with zeros.
        weight_OIKK: the plane.
        across: the axis perpendicular to the plane: 0 depth (axial), 1 height (coronal), 2 width (sagittal).
        geometry: of the whole kernel.

    Returns:
        (B, O, D', H', W').
    """
    x_BCDHW = _align_to_middle(x_BCDHW, across, geometry)
    padding = tuple(0 if axis == across else side for axis, side in enumerate(geometry.padding))
    return functional.conv3d(
        x_BCDHW, weight_OIKK.unsqueeze(2 + across), None, geometry.stride, padding, geometry.dilation, geometry.groups
    )


def _align_to_middle(x_BCDHW: Tensor, axis: int, geometry: ConvGeometry) -> Tensor:
    """Crop or pad an axis so that a kernel of one tap reads what the middle tap of the whole kernel would."""
    side, stride = x_BCDHW.shape[2 + axis], geometry.stride[axis]
    first = geometry.kernel[axis] // 2 * geometry.dilation[axis] - geometry.padding[axis]
    last = first + (geometry.output_side(axis, side, geometry.padding[axis]) - 1) * stride
    behind = last + 1 - side
    if -stride < behind <= 0:  # the voxels left over are too few for one more output
        behind = 0
    if first == 0 and behind == 0:
        return x_BCDHW
    return functional.pad(x_BCDHW, [0, 0] * (2 - axis) + [-first, behind])


class PlaneConv(nn.Module, ABC):
    """A convolution with 2D weights for (B, C, H, W) and (B, C, D, H, W); subclasses say what volumes see.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: one number: a plane is laid along every pair of axes, so it is square.
        stride: one number or (D, H, W); images use the last two.
        padding: as ``stride``.
        dilation: as ``stride``.
        groups: as in ``torch.nn.Conv2d``.
        bias: whether there is one.
        padding_mode: as in ``torch.nn.Conv2d``.

    Raises:
        GeometryError: if the arguments do not make a convolution.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        self.geometry = ConvGeometry(
            kernel=triple(kernel_size),
            stride=triple(stride),
            padding=triple(padding),
            dilation=triple(dilation),
            groups=groups,
            padding_mode=padding_mode,
        )
        self.geometry.check_channels(in_channels, out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights and bias as ``torch.nn.Conv2d`` does (code)."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """The 2D convolution of images, or the subclass's of volumes.

        Raises:
            GeometryError: if the input has neither four axes nor five.
        """
        if x.ndim not in (4, 5):
            raise GeometryError(f"a convolution takes (B, C, H, W) or (B, C, D, H, W); found {tuple(x.shape)}")
        padded, padding = self.geometry.pad(x)
        geometry = replace(self.geometry, padding=padding)
        if x.ndim == 4:
            return functional.conv2d(
                padded, self.weight, self.bias, geometry.stride[1:], padding[1:], geometry.dilation[1:], geometry.groups
            )
        result = self.convolve_volumes(padded, geometry)
        return result if self.bias is None else result + self.bias.to(result.dtype)[:, None, None, None]

    @abstractmethod
    def convolve_volumes(self, x_BCDHW: Tensor, geometry: ConvGeometry) -> Tensor:
        """The convolution of volumes, without bias.

        Args:
            x_BCDHW: volumes, already padded unless with zeros.
            geometry: its padding is with zeros.

        Returns:
            (B, O, D', H', W').
        """

    def extra_repr(self) -> str:
        """Channels and geometry."""
        return f"{self.in_channels}, {self.out_channels}, {self.geometry}"


class ACSConv(PlaneConv):
    """The first third of the output channels convolves across depth, the second across rows, the rest across columns.

    Attributes:
        split: output channels of each; may be changed if the sum stays the same.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, split: Triple | None = None, **rest: object
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **rest)  # type: ignore[arg-type]
        self.split = thirds(out_channels) if split is None else split
        if sum(self.split) != out_channels or min(self.split) < 0:
            raise GeometryError(f"the planes of an ACS convolution share {out_channels} output channels; found {self.split}")

    def convolve_volumes(self, x_BCDHW: Tensor, geometry: ConvGeometry) -> Tensor:
        """Three convolutions side by side; more where a plane's channels begin or end inside a group.

        Args:
            x_BCDHW: volumes, already padded unless with zeros.
            geometry: its padding is with zeros.

        Returns:
            (B, O, D', H', W').
        """
        results, start = [], 0
        for across, count in enumerate(self.split):
            for first, last in _inside_groups(start, start + count, self.out_channels // geometry.groups):
                results.append(self._share(x_BCDHW, first, last, across, geometry))
            start += count
        return torch.cat(results, dim=1)

    def _share(self, x_BCDHW: Tensor, first: int, last: int, across: int, geometry: ConvGeometry) -> Tensor:
        """Output channels first to last: whole groups, or part of one."""
        width_out, width_in = self.out_channels // geometry.groups, self.in_channels // geometry.groups
        groups = range(first // width_out, (last - 1) // width_out + 1)
        x_BCDHW = x_BCDHW[:, groups.start * width_in : groups.stop * width_in]
        return plane_conv(x_BCDHW, self.weight[first:last], across, replace(geometry, groups=len(groups)))


def _inside_groups(first: int, last: int, width: int) -> list[tuple[int, int]]:
    """Channels first to last in as few ranges as possible, each of which is whole groups or lies inside one."""
    begin, end = -(-first // width) * width, last // width * width
    if begin > end:
        return [(first, last)]
    return [(low, high) for low, high in ((first, begin), (begin, end), (end, last)) if low < high]


class MeanACSConv(PlaneConv):
    """Every output channel convolves across all three axes, and the three are averaged; 3 times the cost of ACS."""

    def convolve_volumes(self, x_BCDHW: Tensor, geometry: ConvGeometry) -> Tensor:
        """The mean of three convolutions.

        Args:
            x_BCDHW: volumes, already padded unless with zeros.
            geometry: its padding is with zeros.

        Returns:
            (B, O, D', H', W').
        """
        return torch.stack([plane_conv(x_BCDHW, self.weight, across, geometry) for across in range(3)]).mean(0)


class SoftACSConv(PlaneConv):
    """As mean ACS, with learned weights of the three for each output channel, which pass a softmax and start in [0, 1) (code)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **rest: object) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **rest)  # type: ignore[arg-type]
        self.soft_w_core = nn.Parameter(torch.rand(out_channels, 3))

    def convolve_volumes(self, x_BCDHW: Tensor, geometry: ConvGeometry) -> Tensor:
        """The weighted sum of three convolutions.

        Args:
            x_BCDHW: volumes, already padded unless with zeros.
            geometry: its padding is with zeros.

        Returns:
            (B, O, D', H', W').
        """
        weights = self.soft_w_core.softmax(-1)[:, :, None, None, None]
        return sum(
            (plane_conv(x_BCDHW, self.weight, across, geometry) * weights[:, across] for across in range(3)),
            start=x_BCDHW.new_zeros(()),
        )
