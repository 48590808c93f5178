"""Normalisation, pooling and resampling for images and volumes alike, and PyTorch's modules for a fixed rank.

Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.layers.conv_geometry import Triple, triple


def spatial_axes(x: Tensor) -> int:
    """2 for (B, C, H, W), 3 for (B, C, D, H, W).

    Raises:
        GeometryError: for any other input.
    """
    if x.ndim not in (4, 5):
        raise GeometryError(f"expected (B, C, H, W) or (B, C, D, H, W); found {tuple(x.shape)}")
    return x.ndim - 2


class BatchNorm(_BatchNorm):
    """Batch norm over batch and space; one set of running statistics for images and volumes."""

    def _check_input_dim(self, input: Tensor) -> None:
        spatial_axes(input)


class InstanceNorm(_InstanceNorm):
    """Instance norm over space."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; unlike PyTorch's, inputs without a batch axis are not accepted."""
        spatial_axes(x)
        normal: Tensor = self._apply_instance_norm(x)  # type: ignore[no-untyped-call]
        return normal


class Pool(nn.Module, ABC):
    """Base of modules that have a form for images and one for volumes."""

    @abstractmethod
    def for_rank(self, axes: int) -> nn.Module:
        """PyTorch's module for 2 or 3 spatial axes."""

    def forward(self, x: Tensor) -> Tensor:
        """The same rank; depth is treated like rows and columns."""
        pooled: Tensor = self.for_rank(spatial_axes(x))(x)
        return pooled


class MaxPool(Pool):
    """Maximum in windows; images use the last two of every three numbers."""

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel: Triple = triple(kernel_size)
        self.stride: Triple = self.kernel if stride is None else triple(stride)
        self.padding, self.dilation, self.ceil_mode = triple(padding), triple(dilation), ceil_mode

    def for_rank(self, axes: int) -> nn.Module:
        """``MaxPool2d`` or ``MaxPool3d``."""
        kind: Callable[..., nn.Module] = nn.MaxPool2d if axes == 2 else nn.MaxPool3d
        numbers = (n[-axes:] for n in (self.kernel, self.stride, self.padding, self.dilation))
        return kind(*numbers, ceil_mode=self.ceil_mode)


class AvgPool(Pool):
    """Mean in windows; images use the last two of every three numbers."""

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel: Triple = triple(kernel_size)
        self.stride: Triple = self.kernel if stride is None else triple(stride)
        self.padding, self.ceil_mode, self.count_include_pad = triple(padding), ceil_mode, count_include_pad

    def for_rank(self, axes: int) -> nn.Module:
        """``AvgPool2d`` or ``AvgPool3d``."""
        kind: Callable[..., nn.Module] = nn.AvgPool2d if axes == 2 else nn.AvgPool3d
        numbers = (n[-axes:] for n in (self.kernel, self.stride, self.padding))
        return kind(*numbers, self.ceil_mode, self.count_include_pad)


class AdaptivePool(Pool):
    """Mean or maximum over as many windows as outputs, the same number along every axis.

    Args:
        output_size: along each axis.
        maximum: the maximum instead of the mean.
    """

    def __init__(self, output_size: int = 1, *, maximum: bool = False) -> None:
        super().__init__()
        self.output_size, self.maximum = output_size, maximum

    def for_rank(self, axes: int) -> nn.Module:
        """``AdaptiveAvgPool2d`` or the like."""
        kinds: dict[tuple[bool, int], Callable[[int], nn.Module]] = {
            (False, 2): nn.AdaptiveAvgPool2d,
            (False, 3): nn.AdaptiveAvgPool3d,
            (True, 2): nn.AdaptiveMaxPool2d,
            (True, 3): nn.AdaptiveMaxPool3d,
        }
        return kinds[self.maximum, axes](self.output_size)


class Upsample(Pool):
    """Enlargement by a factor, to the nearest value or linearly along every axis."""

    def __init__(self, scale_factor: float, *, linear: bool, align_corners: bool = False) -> None:
        super().__init__()
        self.scale_factor, self.linear, self.align_corners = scale_factor, linear, align_corners

    def for_rank(self, axes: int) -> nn.Module:
        """``torch.nn.Upsample`` with the mode for that rank."""
        if not self.linear:
            return nn.Upsample(scale_factor=self.scale_factor)
        return nn.Upsample(
            scale_factor=self.scale_factor, mode="bilinear" if axes == 2 else "trilinear", align_corners=self.align_corners
        )


class ChannelDropout(nn.Module):
    """Dropout of whole channels."""

    def __init__(self, p: float, *, inplace: bool = False) -> None:
        super().__init__()
        self.p, self.inplace = p, inplace

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        drop: Any = functional.dropout2d if spatial_axes(x) == 2 else functional.dropout3d
        dropped: Tensor = drop(x, self.p, self.training, self.inplace)
        return dropped
