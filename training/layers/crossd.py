"""Cross-D convolution: one 3D kernel that convolves volumes as it is, and images with a plane that depends on each image.

Source: Cross-D Conv (arXiv 2411.02441), equations 1 to 8 and algorithm 1. The paper rotates the kernel by a phase in Fourier
space; that phase is a circular shift, computed here with three small matrices (:mod:`crossdim.training.layers.circulant`).
Axes: B batch, C channel, D depth, H height, W width, O output channel, I input channel of a group.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from crossdim.storage_schema.errors import GeometryError, describe_unknown_name
from crossdim.training.layers.circulant import build_middle_terms
from crossdim.training.layers.conv_geometry import ConvGeometry, PaddingMode, triple
from crossdim.training.layers.per_sample import Form, convolve_each, mix_planes
from crossdim.training.layers.recompute import enable_recomputation
from crossdim.training.layers.rotation import RotationNet, shift_of

Mode = Literal["paper", "centered"]


class CrossDConv(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W) -> the same rank, with one set of weights.

    A volume is convolved with the 3D kernel. For each image, a small network predicts a shift; the kernel is shifted
    circularly by it, and its middle slice becomes the 2D kernel of this image. A kernel of one tap has no such network:
    shifting one tap changes nothing, so the network of the published layer never had a gradient there.

    Names of parameters are those of published checkpoints, ``weights_3d`` and ``rotation_params``.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: taps, one number or (D, H, W).
        stride: as ``kernel_size``; images use the last two.
        padding: as ``stride``. The default of the published layer is 1, here it is 0 as for all convolutions.
        dilation: as ``stride``; the published layer ignores it.
        groups: as in ``torch.nn.Conv2d``.
        bias: whether there is one; the published layer never has one.
        padding_mode: as in ``torch.nn.Conv2d``.
        mode: ``paper`` shifts by one tap along every axis where the angle is 0, so that the kernels of images and volumes
            are one voxel apart. ``centered`` (ours) subtracts that tap, so that angle 0 is the kernel's own middle slice.
        form: how planes are applied, see :func:`~crossdim.training.layers.per_sample.convolve_each`; changes rounding and cost.

    Raises:
        GeometryError: if the arguments do not make a convolution.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        mode: Mode = "centered",
        form: Form = "auto",
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise GeometryError(describe_unknown_name("mode", mode, get_args(Mode)))
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
        self.mode, self.form = mode, form
        self.weights_3d = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.geometry.kernel))
        self.rotation_params = None if self.geometry.is_point else enable_recomputation(RotationNet(in_channels))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels)) if bias else None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw weights as published (Kaiming normal, fan out), and the bias as PyTorch does. The rotation net draws its own."""
        nn.init.kaiming_normal_(self.weights_3d, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weights_3d[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of images or of volumes.

        Raises:
            GeometryError: if the input has neither four axes nor five.
        """
        if x.ndim not in (4, 5):
            raise GeometryError(f"a Cross-D convolution takes (B, C, H, W) or (B, C, D, H, W); found {tuple(x.shape)}")
        geometry = self.geometry
        padded, padding = geometry.pad(x)
        if x.ndim == 5:
            return functional.conv3d(
                padded, self.weights_3d, self.bias, geometry.stride, padding, geometry.dilation, geometry.groups
            )
        if geometry.is_point:
            return functional.conv2d(
                padded, self.weights_3d[:, :, 0], self.bias, geometry.stride[1:], padding[1:], (1, 1), geometry.groups
            )
        terms = build_middle_terms(self.shifts(x), geometry.kernel)
        result = convolve_each(padded, self.weights_3d, terms, replace(geometry, padding=padding), self.form)
        return result if self.bias is None else result + self.bias.to(result.dtype)[:, None, None]

    def shifts(self, x_BCHW: Tensor) -> Tensor:
        """Shift of the kernel for each image in taps, (B, 3): depth, row, column. Zero for a kernel of one tap."""
        if self.rotation_params is None:
            return x_BCHW.new_zeros(len(x_BCHW), 3)
        # Compilers and exporters decide themselves what is recomputed.
        answer = RotationNet.forward if torch.compiler.is_compiling() or not torch.is_grad_enabled() else RotationNet.__call__
        shift = shift_of(answer(self.rotation_params, x_BCHW))
        return shift if self.mode == "paper" else shift - 1

    def planes(self, shift_B3: Tensor) -> Tensor:
        """The 2D kernels (B, O, I, H, W) for given shifts."""
        terms = build_middle_terms(shift_B3, self.geometry.kernel)
        return mix_planes(self.weights_3d.to(shift_B3.dtype), terms).to(self.weights_3d.dtype)

    @torch.no_grad()
    def center(self) -> None:
        """Turn a layer of mode ``paper`` into one of mode ``centered`` with the same output for images.

        The kernel is rolled by one tap along every axis, so that volumes see it where images were trained to.
        """
        if self.mode == "paper":
            self.weights_3d.copy_(self.weights_3d.roll((1, 1, 1), dims=(2, 3, 4)))
            self.mode = "centered"

    def extra_repr(self) -> str:
        """Channels and all settings that decide what is computed."""
        return f"{self.in_channels}, {self.out_channels}, {self.geometry}, mode={self.mode}, form={self.form}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Published checkpoints have a rotation net also for kernels of one tap, where it has no effect; it is dropped."""
        if self.rotation_params is None:
            for name in [name for name in state_dict if name.startswith(f"{prefix}rotation_params.")]:
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *rest)
