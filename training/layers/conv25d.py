"""2.5D convolution: 2D kernels applied to a volume slice by slice.

Source: M3DV/ACSConv (operators/conv2_5d.py), where a stride given as one number applies to all three axes, so that depth is
strided too.
"""

from __future__ import annotations

from torch import nn

from crossdim.training.layers.conv_geometry import PaddingMode, triple


class Conv25D(nn.Conv3d):
    """A 3D convolution with kernels of one slice, (1, K, K).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: K.
        stride: one number or (D, H, W).
        padding: one number or (D, H, W); along depth, where one tap needs none, it must be 0 or is taken as 0.
        dilation: one number or (D, H, W).
        groups: as in ``torch.nn.Conv3d``.
        bias: whether there is one.
        padding_mode: as in ``torch.nn.Conv3d``.
    """

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
        super().__init__(
            in_channels,
            out_channels,
            (1, kernel_size, kernel_size),
            triple(stride),
            (0, *triple(padding)[1:]),
            triple(dilation),
            groups,
            bias,
            padding_mode,
        )
