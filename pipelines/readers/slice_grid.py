"""Checks whether slice positions make an even stack, straight or sheared, within the rounding of their written digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.raw import TiltRule
from crossdim.storage_schema.errors import SampleError

Vector = npt.NDArray[np.float64]

#: Positions nearer than this are the same; scanners write about this many digits. Our choice.
SAME_POSITION_MM = 1e-3
#: Distances between slices may differ, and slices may lie off an even grid, by this share of the median distance. Ours.
SPACING_TOLERANCE = 0.02
#: Rounding of positions may move a slice by this share of the spacing at most: a lost slice moves some by more. Ours.
MAX_ROUNDING = 0.1
#: Slices may lie beside the stacking axis by this share of a pixel. Ours.
MAX_SHIFT = 0.1
#: Tangent of the largest angle between stacking direction and slice normal: half a degree. Ours.
MAX_TILT = 0.01
#: Gantries tilt by 30 degrees at most; a stack that is sheared by more has positions of another kind. Ours.
MAX_DEGREES = 45.0
#: The direction of a stack of two slices cannot be told from one slice out of place.
_MIN_SHEARED = 3
_BISECTIONS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceGrid:
    """``step_mm`` leads from one slice to the next (LPS); ``deviation_mm`` is the largest distance of a slice from its place.

    ``tilt_degrees`` is the angle between step and normal of a sheared stack. It is zero for a straight one, whose step may be off
    by rounding.
    """

    step_mm: Vector
    deviation_mm: float
    tilt_degrees: float = 0.0


def fit_slice_grid(
    positions_mm: Vector, normal: Vector, *, rounding_mm: Vector, pixel_mm: float, tilt: TiltRule = "refuse"
) -> SliceGrid:
    """Fit the even grid of slices that are sorted along their normal.

    Args:
        positions_mm: (N, 3), at least two, as stated.
        normal: (3,), unit vector of the slices.
        rounding_mm: (3,), half of the last digit that positions are written with, along each axis.
        pixel_mm: the smaller side of a pixel.
        tilt: whether a sheared stack is refused, or its step found.

    Returns:
        The step from slice to slice, and the largest deviation from the grid.

    Raises:
        SampleError: rule ``repeated_position``, ``irregular_spacing``, ``gantry_tilt`` or ``shifted_slices``; its files are
            numbers of slices.
    """
    depths = positions_mm @ normal
    _check_gaps(depths, float(np.abs(normal) @ rounding_mm))
    mean_step = (positions_mm[-1] - positions_mm[0]) / (len(positions_mm) - 1)
    straight = _straighten(mean_step, normal, rounding_mm, len(positions_mm))
    degrees = 0.0 if straight is not None else _measure_tilt(mean_step, normal, len(positions_mm), tilt)
    step = mean_step if straight is None else straight
    apart = positions_mm - positions_mm[0] - np.arange(len(positions_mm))[:, None] * step
    beside = np.linalg.norm(apart - (apart @ normal)[:, None] * normal, axis=1)
    if beside.max() > max(MAX_SHIFT * pixel_mm, 2 * float(np.linalg.norm(rounding_mm))):
        raise SampleError(
            "shifted_slices",
            f"slices lie up to {beside.max():.3g} mm beside the axis that they are stacked on; pixels have {pixel_mm:.3g} mm",
            (int(beside.argmax()),),
        )
    return SliceGrid(step_mm=step, deviation_mm=float(np.linalg.norm(apart, axis=1).max()), tilt_degrees=degrees)


def _straighten(step: Vector, normal: Vector, rounding_mm: Vector, count: int) -> Vector | None:
    """The step from slice to slice; along the normal where only rounding of the first and last position leads beside it.

    None for a sheared stack.
    """
    along = float(step @ normal)
    beside = float(np.linalg.norm(step - along * normal))
    if beside <= MAX_TILT * along:
        return step
    rounding = min(2 * float(np.linalg.norm(rounding_mm)) / (count - 1), MAX_ROUNDING * along)
    return along * normal if beside <= rounding else None


def _measure_tilt(step: Vector, normal: Vector, count: int, rule: TiltRule) -> float:
    """The angle between step and normal, in degrees, if it may be corrected."""
    along = float(step @ normal)
    degrees = float(np.degrees(np.arctan(np.linalg.norm(step - along * normal) / along)))
    found = f"slices are stacked {degrees:.1f} degrees off their normal"
    if rule == "refuse":
        raise SampleError("gantry_tilt", f"{found}; --tilt correct straightens the stacks of a DICOM series")
    if degrees > MAX_DEGREES:
        raise SampleError("gantry_tilt", f"{found}; no gantry tilts by more than {MAX_DEGREES:g}")
    if count < _MIN_SHEARED:
        raise SampleError("gantry_tilt", f"{found}; the direction of {count} slices cannot be told from one slice out of place")
    return degrees


def _check_gaps(depths: Vector, rounding_mm: float) -> None:
    gaps = np.diff(depths)
    same = np.flatnonzero(gaps < SAME_POSITION_MM)
    if same.size:
        raise SampleError(
            "repeated_position",
            f"{same.size} slices lie where another one lies; a time series or a scan stored twice is no volume",
            (int(same[0]), int(same[0]) + 1),
        )
    median = float(np.median(gaps))
    if np.abs(gaps - median).max() <= SPACING_TOLERANCE * median:
        return
    spacing, nearest = _fit_even_grid(depths)
    allowed = max(min(rounding_mm, MAX_ROUNDING * spacing), SPACING_TOLERANCE * median)
    if nearest > allowed * (1 + 1e-6):
        worst = int(np.abs(gaps - median).argmax())
        raise SampleError(
            "irregular_spacing",
            f"slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart, up to {nearest:.3g} mm off any even grid; "
            f"{allowed:.3g} mm is rounding; a slice may be missing",
            (worst, worst + 1),
        )


def _fit_even_grid(depths: Vector) -> tuple[float, float]:
    """The spacing of the even grid that all depths lie nearest to, and the largest distance of one from it.

    For one spacing s it is half the range of (depth_k - k s), a convex function of s: its minimum is found by thirds.
    """
    numbers = np.arange(len(depths))
    centre = (depths[-1] - depths[0]) / (len(depths) - 1)
    width = float(np.ptp(np.diff(depths)))
    low, high = centre - width, centre + width
    for _ in range(_BISECTIONS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if np.ptp(depths - numbers * left) < np.ptp(depths - numbers * right):
            high = right
        else:
            low = left
    spacing = (low + high) / 2
    return spacing, float(np.ptp(depths - numbers * spacing)) / 2
