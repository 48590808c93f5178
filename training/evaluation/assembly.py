"""Reconstruct a volume of any size box by box and blend the boxes without seams, in the memory of one row of boxes.

Boxes overlap; where they do, the weight of each decreases towards its border. The weights of an axis sum to one at every
voxel, and so do their products, so that no division is needed afterwards.

Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.storage_schema.sample import Array, Scaling
from crossdim.storage_schema.superpatch import cut

Floats = npt.NDArray[np.float32]
#: Reconstructs (B, C, D, H, W) in unit range; the number of the box may be used as a random seed.
Restore = Callable[[Tensor, int], Tensor]
#: Slices that are yielded at a time; the consumer needs memory in proportion.
SLAB = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """Cubes of ``side`` voxels, of which adjacent ones overlap by at least ``overlap``.

    A step ``side - overlap`` that is not a multiple of the patch also averages patterns that are aligned with the patch grid.
    """

    side: int = 128
    overlap: int = 16

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            overlap=0 <= self.overlap < self.side,
            side=self.side > 0,
        ):
            raise GeometryError(f"a tiling needs 0 <= overlap < side; found {found}")

    def starts(self, size: int) -> list[int]:
        """First voxels of the boxes along an axis; the last box ends with the axis, or beyond it if the axis is shorter."""
        last = max(0, size - self.side)
        return [*range(0, last, self.side - self.overlap), last]

    def weights(self, size: int) -> list[Floats]:
        """For every start, the weights (side,) of a box along the axis: ramps as long as the overlap."""
        ramp = np.minimum(np.arange(1, self.side + 1), np.arange(self.side, 0, -1))
        shape = np.minimum(ramp, self.overlap + 1).astype(np.float64)
        starts = self.starts(size)
        total = np.zeros(max(size, self.side))
        for start in starts:
            total[start : start + self.side] += shape
        return [(shape / total[start : start + self.side]).astype(np.float32) for start in starts]


class Slab(NamedTuple):
    """Finished slices of a volume, from ``start`` on: (C, D, H, W) in unit range."""

    start: int
    unit_CDHW: Floats


def restore_in_slabs(volume_CDHW: Array, scaling: Scaling, restore: Restore, tiling: Tiling, fill: float) -> Iterator[Slab]:
    """Reconstruct a volume; every slice is yielded once, in order.

    Args:
        volume_CDHW: stored values; may be a memory map, since only boxes of it are read.
        scaling: of the stored values.
        restore: called with one box at a time.
        tiling: the boxes.
        fill: stored value beyond the border, air.

    Yields:
        Slabs of at most ``SLAB`` slices, (C, d, H, W), float32 in unit range.
    """
    channels, depth, height, width = volume_CDHW.shape
    tops, lines, columns = (list(zip(tiling.starts(n), tiling.weights(n), strict=True)) for n in (depth, height, width))
    row = np.zeros((channels, tiling.side, height, width), np.float32)
    number = 0
    for place, (z, along_z) in enumerate(tops):
        for y, along_y in lines:
            for x, along_x in columns:
                box = torch.from_numpy(scaling.unit(cut(volume_CDHW, (z, y, x), tiling.side, fill)))
                restored = restore(box[None], number)[0].cpu().numpy()
                restored = restored * (along_z[:, None, None] * along_y[:, None] * along_x)
                target = row[:, :, y : y + tiling.side, x : x + tiling.side]
                target += restored[:, :, : target.shape[2], : target.shape[3]]
                number += 1
        done = (tops[place + 1][0] if place + 1 < len(tops) else depth) - z
        for first in range(0, done, SLAB):
            yield Slab(z + first, row[:, first : min(first + SLAB, done)].copy())
        row[:, :-done] = row[:, done:]
        row[:, -done:] = 0


def average_over_shifts(restore: Restore, shifts: tuple[int, ...]) -> Restore:
    """Return a function that averages the reconstructions of a box and of the box shifted by some voxels along all axes.

    Errors that repeat with the patch grid then lie elsewhere each time and average out; each shift costs one more pass. Voxels
    uncovered by a shift repeat the edge of the box, and voxels shifted out of the box are not averaged.

    Args:
        restore: reconstructs a box.
        shifts: at least 0, in voxels; 0 must be among them, so that every voxel is reconstructed.

    Returns:
        The averaging function, called as ``restore`` is.

    Raises:
        GeometryError: if a shift is negative, or 0 is not among them.
    """
    if 0 not in shifts or min(shifts) < 0:
        raise GeometryError(f"shifts are voxels of at least 0, and 0 is among them; found {shifts}")

    def average(x_BCDHW: Tensor, number: int) -> Tensor:
        total, counts = torch.zeros_like(x_BCDHW), torch.zeros_like(x_BCDHW)
        depth, height, width = x_BCDHW.shape[2:]
        for s in shifts:
            moved = F.pad(x_BCDHW, (s, 0) * 3, mode="replicate")[:, :, :depth, :height, :width]
            total[:, :, : depth - s, : height - s, : width - s] += restore(moved, number)[:, :, s:, s:, s:]
            counts[:, :, : depth - s, : height - s, : width - s] += 1
        return total / counts

    return average
