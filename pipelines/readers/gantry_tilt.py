"""Gantry tilt: slices that are stacked aslant of their normal are moved within their planes onto one straight grid.

A slice lies where its position says, so that its pixels are right and only the grid of the stack is sheared. Each slice is
interpolated linearly along rows and columns; nothing is interpolated between slices. The grid is as much larger as the stack is
wider than one slice, so that no pixel is lost, and what no slice covers lies outside of the field of view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.volume_values import Mask

#: A whole number of pixels within this is one: nothing is interpolated. Ours, far below the digits of positions.
_WHOLE_PX = 1e-4

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tilt:
    """How a stack is sheared.

    Attributes:
        degrees: between the stacking direction and the normal of the slices.
        num_slices: of the stack.
        shift_px: rows and columns by which each slice lies beside the one before it.
    """

    degrees: float
    num_slices: int
    shift_px: tuple[float, float]

    @property
    def note(self) -> str:
        """What is recorded of the correction."""
        farthest = max(abs(shift) for shift in self.shift_px) * (self.num_slices - 1)
        return f"gantry tilt of {self.degrees:.1f} degrees corrected, slices moved by up to {farthest:.1f} pixels"

    @property
    def first_px(self) -> tuple[int, int]:
        """Row and column of the first slice's grid, in whole pixels, where the straight grid begins; zero or less."""
        rows, columns = (math.floor(_round(min(0.0, shift * (self.num_slices - 1)))) for shift in self.shift_px)
        return rows, columns

    def widen(self, shape_HW: tuple[int, int]) -> tuple[int, int]:
        """Find the size of the straight grid.

        Args:
            shape_HW: of one slice, pixels.

        Returns:
            Rows and columns that hold every slice at its place.
        """
        ends = (math.ceil(_round(max(0.0, shift * (self.num_slices - 1)))) for shift in self.shift_px)
        rows, columns = (size + end - first for size, end, first in zip(shape_HW, ends, self.first_px, strict=True))
        return rows, columns

    def move_slice(self, values_HW: Plane, outside_HW: Mask | None, depth: int) -> tuple[Plane, Mask]:
        """Interpolate one slice on the straight grid.

        Args:
            values_HW: physical values.
            outside_HW: which of them lie outside of the field of view; None if none do.
            depth: number of the slice along the normal.

        Returns:
            Values and what lies outside, (H, W) of the straight grid. A value that an outside one contributes to is outside.
        """
        values, outside = values_HW, np.zeros(values_HW.shape, np.bool_) if outside_HW is None else outside_HW
        sizes = self.widen((values.shape[0], values.shape[1]))
        for axis, (size, first, shift) in enumerate(zip(sizes, self.first_px, self.shift_px, strict=True)):
            values, outside = _move(values, outside, size, _round(first - depth * shift), axis)
        return values, outside


def _round(pixels: float) -> float:
    """Whole numbers that are missed by rounding alone."""
    return float(round(pixels)) if abs(pixels - round(pixels)) < _WHOLE_PX else pixels


def _move(values: Plane, outside: Mask, size: int, offset_px: float, axis: int) -> tuple[Plane, Mask]:
    """Values at ``number + offset_px`` along an axis for each number below ``size``; outside where there are none."""
    lower = np.arange(size) + math.floor(offset_px)
    weight = np.float32(offset_px - math.floor(offset_px))
    upper = lower + 1 if weight else lower
    length = values.shape[axis]
    covered = (lower >= 0) & (upper < length)
    lower, upper = np.clip(lower, 0, length - 1), np.clip(upper, 0, length - 1)
    moved = values.take(lower, axis)
    hidden = outside.take(lower, axis) | outside.take(upper, axis)
    if weight:
        moved = (1 - weight) * moved + weight * values.take(upper, axis)
    hidden |= ~(covered[:, None] if axis == 0 else covered[None, :])
    return moved, hidden
