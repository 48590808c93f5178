"""The superpatch grid: how a volume is cut into equal cubes, and assembled from them.

Source: MAESIL (arXiv 2604.00514): non-overlapping 128^3 boxes. Padding at the end of each axis, raster order and the
foreground rule are ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.storage_schema.sample import Array

Edge = Literal["pad", "drop"]
Index = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperpatchGrid:
    """Boxes of ``side`` voxels. ``edge`` says what happens to an incomplete box: padded with air, or dropped.

    A box is kept when at least ``min_foreground`` of its voxels are brighter than ``foreground_above`` in unit range.

    Attributes:
        side (voxels): side of a box.
        edge: what happens to an incomplete box: ``pad`` fills it up with air, ``drop`` leaves it out.
        foreground_above: brightness in unit range above which a voxel is foreground.
        min_foreground: smallest fraction of foreground voxels of a box that is kept.
    """

    side: int = 128
    edge: Edge = "pad"
    foreground_above: float = 0.02
    min_foreground: float = 0.05

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            side=self.side >= 1,
            edge=self.edge in ("pad", "drop"),
        ):
            raise GeometryError(f"a superpatch grid needs side >= 1 and edge pad or drop; found {found}")
        if not 0 <= self.min_foreground <= 1:
            raise GeometryError(f"min_foreground is a fraction; found {self.min_foreground}")

    def counts(self, shape_DHW: Index) -> Index:
        """Number of boxes along each axis."""
        extra = self.side - 1 if self.edge == "pad" else 0
        depth, height, width = ((size + extra) // self.side for size in shape_DHW)
        return depth, height, width

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


def foreground_fraction(unit_box: Array, above: float) -> float:
    """Share of voxels brighter than a threshold.

    Args:
        unit_box: values in unit range, any shape.
        above: the threshold, 0 to 1; equal values do not count.

    Returns:
        From 0 to 1.
    """
    return float(np.count_nonzero(unit_box > above) / unit_box.size)


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
