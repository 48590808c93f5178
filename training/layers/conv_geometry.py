"""Geometry of a convolution over one, two or three axes: PyTorch's arguments, depth first.

Axes: D depth, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings

Triple = tuple[int, int, int]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def triple(value: int | tuple[int, ...]) -> Triple:
    """A number for all three axes, or three numbers (D, H, W).

    Raises:
        GeometryError: if there is neither one nor three.
    """
    if isinstance(value, int):
        return value, value, value
    if len(value) != 3:
        raise GeometryError(f"expected one number or three, (D, H, W); found {value}")
    return value[0], value[1], value[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvGeometry:
    """Arguments of a convolution; a 2D convolution uses the last two axes of each field.

    Attributes:
        kernel: (D, H, W), taps of the kernel.
        stride: (D, H, W).
        padding: (D, H, W), on both sides.
        dilation: (D, H, W).
        groups: of channels, as in ``torch.nn.Conv2d``.
        padding_mode: as in ``torch.nn.Conv2d``.
    """

    kernel: Triple
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    groups: int = 1
    padding_mode: PaddingMode = "zeros"

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            kernel=min(self.kernel) >= 1,
            stride=min(self.stride) >= 1,
            dilation=min(self.dilation) >= 1,
            groups=self.groups >= 1,
            padding=min(self.padding) >= 0,
            padding_mode=self.padding_mode in get_args(PaddingMode),
        ):
            raise GeometryError(
                f"a convolution needs kernel, stride, dilation and groups of at least 1, padding of at least 0, and a padding "
                f"mode of {', '.join(get_args(PaddingMode))}; found {found}"
            )

    @property
    def is_point(self) -> bool:
        """Whether the kernel has one tap."""
        return self.kernel == (1, 1, 1)

    @property
    def plane_taps(self) -> int:
        """Taps of one depth slice of the kernel."""
        return self.kernel[1] * self.kernel[2]

    def check_channels(self, in_channels: int, out_channels: int) -> None:
        """Refuse numbers of channels that are not multiples of the groups.

        Args:
            in_channels: of the input.
            out_channels: of the output.

        Raises:
            GeometryError: if one is not.
        """
        if in_channels % self.groups or out_channels % self.groups:
            raise GeometryError(f"{in_channels} and {out_channels} channels do not fall into {self.groups} groups")

    def pad(self, x: Tensor) -> tuple[Tensor, Triple]:
        """The input, padded unless with zeros, and the zero padding that remains to be done."""
        if self.padding_mode == "zeros" or not any(self.padding):
            return x, self.padding
        axes = self.padding[5 - x.ndim :]
        borders = [border for side in reversed(axes) for border in (side, side)]
        return functional.pad(x, borders, mode=self.padding_mode), (0, 0, 0)

    def output_side(self, axis: int, side: int, padding: int) -> int:
        """Number of outputs along an axis.

        Args:
            axis: 0 depth, 1 height, 2 width.
            side: of the input.
            padding: on both sides.

        Returns:
            Outputs along the axis, by PyTorch's formula.
        """
        reach = self.dilation[axis] * (self.kernel[axis] - 1)
        return (side + 2 * padding - reach - 1) // self.stride[axis] + 1
