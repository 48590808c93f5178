"""The decoder of every backbone: from the deepest map to feature maps of three levels, without skip connections.

Source: RL4M/PCRLv2, models/pcrlv2_model_3d.py (lines 37-65, 114-129), for a reduction of 8 on every axis. How it adapts to
encoders that reduce axes differently is ours. Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.backbones.unit import build_unit
from crossdim.training.layers.dual_norm import Norm
from crossdim.training.layers.fused_transposed import upsample_and_convolve

#: Voxels along (D, H, W).
Triple = tuple[int, int, int]


def upsampling(reduction: Triple) -> list[Triple]:
    """Upsampling factors of a decoder's steps, per axis, first step first.

    The last three steps end at 1/4, 1/2 and 1 of the input, or nearer to its size on an axis that was reduced by less;
    steps before them undo reduction beyond 8.

    Args:
        reduction: how many voxels of the input one voxel of the deepest map covers, per axis.

    Raises:
        GeometryError: if a reduction is not a power of two.
    """
    if any(r < 1 or r & (r - 1) for r in reduction):
        raise GeometryError(f"the decoder enlarges by twos: an encoder must reduce by powers of two; found {reduction}")
    ladder = [2**k for k in range(max(8, *reduction).bit_length() - 1, -1, -1)]
    d, h, w = ([min(r, big) // min(r, small) for big, small in itertools.pairwise(ladder)] for r in reduction)
    return list(zip(d, h, w, strict=True))


class Level(nn.Module):
    """Upsampling, then two units: (B, width_in, D, H, W) -> (B, width_out, s D, ...)."""

    def __init__(self, width_in: int, width_out: int, step: Triple, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(width_in, width_in, step, stride=step)
        self.first = build_unit(width_in, width_out, norm)
        self.second = build_unit(width_out, width_out, norm)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The level's feature map."""
        convolution, *rest = self.first
        assert isinstance(convolution, nn.Conv3d)
        x = upsample_and_convolve(x_BCDHW, self.up, convolution)
        for layer in rest:
            x = layer(x)
        refined: Tensor = self.second(x)
        return refined


class Decoder3D(nn.Module):
    """The deepest map -> three feature maps, deepest first, the last at the input's size."""

    def __init__(self, width_in: int, widths: Triple, reduction: Triple, norm: Norm) -> None:
        super().__init__()
        *deeper, _, _, _ = steps = upsampling(reduction)
        self.rise = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose3d(width_in, width_in, s, stride=s), build_unit(width_in, width_in, norm))
            for s in deeper
        )
        pairs = itertools.pairwise((width_in, *widths))
        self.levels = nn.ModuleList(Level(a, b, step, norm) for (a, b), step in zip(pairs, steps[-3:], strict=True))

    def units(self) -> list[nn.Module]:
        """Every level."""
        return [*self.rise, *self.levels]

    def forward(self, deepest_BCDHW: Tensor) -> list[Tensor]:
        """Feature maps of the three levels."""
        x = deepest_BCDHW
        for rise in self.rise:
            x = rise(x)
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps
