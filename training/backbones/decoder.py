"""The decoder of every backbone: from the deepest map to feature maps of three levels, without skip connections.

Source: RL4M/PCRLv2, models/pcrlv2_model_3d.py (lines 37-65, 114-129), for a reduction of 8 on every axis. How it follows
encoders that reduce axes differently is ours. Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from storage_schema.errors import GeometryError
from training.backbones.unit import unit
from training.layers.dual_norm import Norm

#: Voxels along (D, H, W).
Triple = tuple[int, int, int]


def upsampling(reduction: Triple) -> list[Triple]:
    """Factors per axis by which a decoder enlarges, first step first.

    The last three steps end at 1/4, 1/2 and 1 of the input, or nearer to its size on an axis that was reduced by less;
    steps before them undo what an encoder reduced beyond 8.

    Args:
        reduction: how many voxels of the input one voxel of the deepest map stands for, per axis.

    Raises:
        GeometryError: if a reduction is no power of two.
    """
    if any(r < 1 or r & (r - 1) for r in reduction):
        raise GeometryError(f"the decoder enlarges by twos: an encoder must reduce by powers of two; found {reduction}")
    ladder = [2**k for k in range(max(8, *reduction).bit_length() - 1, -1, -1)]
    d, h, w = ([min(r, big) // min(r, small) for big, small in itertools.pairwise(ladder)] for r in reduction)
    return list(zip(d, h, w, strict=True))


class Decoder3D(nn.Module):
    """The deepest map -> three feature maps, deepest first, the last at the input's size."""

    def __init__(self, width_in: int, widths: Triple, reduction: Triple, norm: Norm) -> None:
        super().__init__()
        *deeper, _, _, _ = steps = upsampling(reduction)
        self.rise = nn.ModuleList(nn.Sequential(_enlarge(width_in, s), unit(width_in, width_in, norm)) for s in deeper)
        chain = (width_in, *widths)
        self.up = nn.ModuleList(_enlarge(w, step) for w, step in zip(chain, steps[-3:], strict=False))
        self.refine = nn.ModuleList(
            nn.Sequential(unit(w, out, norm), unit(out, out, norm)) for w, out in itertools.pairwise(chain)
        )

    def units(self) -> list[nn.Module]:
        """What is worth recomputing: the convolutions of every level."""
        return [*self.rise, *self.refine]

    def forward(self, deepest_BCDHW: Tensor) -> list[Tensor]:
        """Feature maps of the three levels."""
        x = deepest_BCDHW
        for rise in self.rise:
            x = rise(x)
        levels = []
        for up, refine in zip(self.up, self.refine, strict=True):
            x = refine(up(x))
            levels.append(x)
        return levels


def _enlarge(width: int, step: Triple) -> nn.ConvTranspose3d:
    return nn.ConvTranspose3d(width, width, step, stride=step)
