"""The superpatch grid: how a volume is cut into equal cubes, and assembled from them.

Source: MAESIL (arXiv 2604.00514): non-overlapping 128^3 boxes. Padding at the end of each axis, raster order and the
foreground rule are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.storage_schema.sample import Array

Padding = Literal["pad", "drop"]
#: Recorded with a dataset: of which voxels ``min_foreground`` is a share. Datasets without this record counted all of a box.
FOREGROUND_OF = "the voxels that its volume can give a box"
Index = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperpatchGrid:
    """Boxes of ``side`` voxels, of which those that are mostly air are left out.

    A box is kept when voxels brighter than ``foreground_above`` in unit range are at least ``min_foreground`` of those that its
    volume can give a box: all of them, or fewer where the volume is thinner than a box. Of an incomplete box at the end of a
    long axis they are all, too, so that a plane or two at the border do not become a sample.

    Attributes:
        side (voxels): side of a box.
        edge: what happens to an incomplete box: ``pad`` fills it up with air, ``drop`` leaves it out.
        thin: what happens to a volume that is shorter than a box along an axis: ``pad`` fills it up, ``drop`` refuses it.
        foreground_above: brightness in unit range above which a voxel is foreground.
        min_foreground: smallest fraction of foreground voxels of a box that is kept.
    """

    side: int = 128
    edge: Padding = "pad"
    thin: Padding = "pad"
    foreground_above: float = 0.02
    min_foreground: float = 0.05

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            side=self.side >= 1,
            edge=self.edge in get_args(Padding),
            thin=self.thin in get_args(Padding),
        ):
            raise GeometryError(f"a superpatch grid needs side >= 1, edge and thin pad or drop; found {found}")
        if not (0 <= self.min_foreground <= 1 and 0 <= self.foreground_above < 1):
            found = f"min_foreground={self.min_foreground}, foreground_above={self.foreground_above}"
            raise GeometryError(f"min_foreground and foreground_above are fractions; found {found}")

    def counts(self, shape_DHW: Index) -> Index:
        """Number of boxes along each axis."""
        extra = self.side - 1 if self.edge == "pad" else 0
        depth, height, width = ((size + extra) // self.side for size in shape_DHW)
        return depth, height, width

    def count_fillable(self, shape_DHW: Index) -> int:
        """Count the voxels that a volume can give a box: all, or fewer where it is shorter than a box along an axis."""
        return math.prod(min(self.side, size) for size in shape_DHW)

    def starts(self, shape_DHW: Index) -> list[Index]:
        """First voxel of every box, in raster order (z slowest)."""
        counts = self.counts(shape_DHW)
        return [(z * self.side, y * self.side, x * self.side) for z, y, x in np.ndindex(*counts)]


def cut(volume_CDHW: Array, start: Index, side: int, fill: float) -> Array:
    """Cut one box from a volume.

    Args:
        volume_CDHW: (C, D, H, W).
        start: first voxel of the box, (z, y, x).
        side: of the box, S, in voxels.
        fill: value of the voxels beyond the volume's end.

    Returns:
        (C, S, S, S), a new array with the volume's dtype.

    Raises:
        GeometryError: if the box lies outside of the volume.
    """
    window = volume_CDHW[(slice(None), *(slice(s, s + side) for s in start))]
    if window.shape[1:] == (side, side, side):
        return window.copy()
    if 0 in window.shape:
        raise GeometryError(f"box at {start} lies outside a volume of shape {volume_CDHW.shape[1:]}")
    box = np.full((volume_CDHW.shape[0], side, side, side), fill, volume_CDHW.dtype)
    box[tuple(slice(0, n) for n in window.shape)] = window
    return box


def compute_foreground(unit_box: Array, above: float, num_voxels: int) -> float:
    """Compute the share of voxels brighter than a threshold.

    Args:
        unit_box: values in unit range, any shape; padding is 0.
        above: the threshold, 0 to 1; equal values do not count.
        num_voxels: of which it is a share, see :meth:`SuperpatchGrid.count_fillable`.

    Returns:
        From 0 to 1.
    """
    return float(np.count_nonzero(unit_box > above) / num_voxels)


def assemble(boxes: Iterable[tuple[Index, Array]], shape_DHW: Index, fill: float) -> Array:
    """Assemble a volume from boxes.

    Args:
        boxes: first voxel (z, y, x) and array (C, S, S, S) of each; what lies beyond the volume's end is cut off.
        shape_DHW: of the volume, in voxels.
        fill: value of the voxels that no box covers.

    Returns:
        (C, D, H, W), dtype of the boxes.

    Raises:
        GeometryError: if there is no box at all, so that channels and dtype are unknown.
    """
    volume: Array | None = None
    for start, box in boxes:
        if volume is None:
            volume = np.full((box.shape[0], *shape_DHW), fill, box.dtype)
        ends = [min(s + n, size) for s, n, size in zip(start, box.shape[1:], shape_DHW, strict=True)]
        inside = tuple(slice(0, end - s) for s, end in zip(start, ends, strict=True))
        volume[(slice(None), *(slice(s, end) for s, end in zip(start, ends, strict=True)))] = box[(slice(None), *inside)]
    if volume is None:
        raise GeometryError("no box to assemble")
    return volume
