"""Positions of the slices of a series, from their headers alone.

Order, spacing and affine come from ImagePositionPatient along the slice normal; InstanceNumber, SliceLocation, file names
and SliceThickness are not used where positions exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.gantry_tilt import Tilt
from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.raw import TiltRule, number_files
from crossdim.pipelines.readers.slice_grid import MAX_SHIFT, SAME_POSITION_MM, SliceGrid, fit_slice_grid
from crossdim.storage_schema.errors import SampleError

#: Direction cosines may differ by this much between slices. Ours.
COSINE_TOLERANCE = 1e-3
#: Decimals of a position whose text is not known: no rounding is assumed.
_MANY_DIGITS = 12
#: LPS, DICOM's axes, to RAS.
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesGeometry:
    """A stack of slices. ``order`` sorts the files along the normal; ``affine`` maps (d, h, w, 1) to RAS mm.

    ``note`` states how far positions are from even, if they are not quite even. With a ``tilt``, shape and affine are those of
    the straight grid that slices are moved onto.
    """

    order: tuple[int, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]
    note: str | None = None
    tilt: Tilt | None = None


def same_grid(headers: Sequence[SliceHeader]) -> SliceHeader:
    """Check that all headers describe slices of the same kind, and return the first.

    Raises:
        SampleError: rule ``mixed_...`` naming what differs, or ``missing_...`` naming what is not there.
    """
    first = headers[0]
    for name in ("orientation", "spacing_mm"):
        missing = _numbers_where([getattr(h, name) is None for h in headers])
        if missing:
            rule = f"missing_{name.removesuffix('_mm')}"
            raise SampleError(rule, f"{len(missing)} of {len(headers)} slices state no {name}; a volume needs it", missing)
    for name, rule in (("rows", "mixed_size"), ("columns", "mixed_size"), ("photometric", "mixed_photometric")):
        values = [str(getattr(h, name)) for h in headers]
        if len(set(values)) > 1:
            usual = _usual(values)
            odd = _numbers_where([value != usual for value in values])
            raise SampleError(rule, f"slices of one series differ in {name}: {', '.join(sorted(set(values)))}", odd)
    for name, rule, tolerance in (
        ("orientation", "mixed_orientation", COSINE_TOLERANCE),
        ("spacing_mm", "mixed_spacing", SAME_POSITION_MM),
    ):
        stated = [getattr(h, name) for h in headers]
        apart = np.abs(np.array(stated) - np.array(_usual(stated))).max(axis=1)
        if apart.max() > tolerance:
            raise SampleError(
                rule,
                f"slices of one series differ in {name} by up to {apart.max():.4g}; at most {tolerance:g} is rounding",
                _numbers_where(apart > tolerance),
            )
    return first


def _usual(values: Sequence[Any]) -> Any:
    """The value that most slices have; of equals, the first."""
    return Counter(values).most_common(1)[0][0]


def _numbers_where(found: Iterable[bool]) -> tuple[int, ...]:
    return tuple(number for number, one in enumerate(found) if one)


def slice_directions(header: SliceHeader) -> npt.NDArray[np.float64]:
    """Rows: unit vectors (LPS) of the normal, of increasing row, of increasing column.

    Args:
        header: with an orientation.

    Raises:
        SampleError: rule ``orientation`` if it is none.
    """
    along_row, down = np.array(header.orientation).reshape(2, 3)
    lengths = np.linalg.norm([along_row, down], axis=1)
    if np.abs(lengths - 1).max() > COSINE_TOLERANCE * 10 or abs(along_row @ down) > COSINE_TOLERANCE * 10:
        raise SampleError("orientation", f"ImageOrientationPatient {header.orientation} is not two unit vectors at a right angle")
    return np.array([np.cross(along_row, down), down, along_row])


def stack_slices(headers: Sequence[SliceHeader], *, tilt: TiltRule = "refuse") -> SeriesGeometry:
    """Stack the slices of a series to a volume.

    Args:
        headers: one per slice, in any order.
        tilt: whether a sheared stack is refused, or its straight grid found.

    Returns:
        Their order, and the grid of the volume.

    Raises:
        SampleError: naming what keeps them from being one straight, evenly spaced volume.
    """
    first = same_grid(headers)
    missing = _numbers_where([h.position_mm is None for h in headers])
    if missing:
        message = f"{len(missing)} of {len(headers)} slices state no ImagePositionPatient; their place is unknown"
        raise SampleError("missing_position", message, missing)
    axes = slice_directions(first)
    positions = np.array([h.position_mm for h in headers])
    order = np.argsort(positions @ axes[0], kind="stable")
    row_mm, column_mm = first.spacing_mm or (0.0, 0.0)
    if min(row_mm, column_mm) <= 0:
        raise SampleError("missing_spacing", f"PixelSpacing is {first.spacing_mm}; both lengths must be positive")
    with number_files(order.tolist()):
        grid = _fit_grid(positions[order], axes[0], headers, tilt)
    pixel_axes = np.array([axes[1] * row_mm, axes[2] * column_mm])
    moved = _find_tilt(grid, pixel_axes, len(headers))
    first_px = moved.first_px if moved else (0, 0)
    step = axes[0] * float(grid.step_mm @ axes[0]) if moved else grid.step_mm
    affine = np.eye(4)
    affine[:3, :3] = _TO_RAS @ np.column_stack([step, *pixel_axes])
    affine[:3, 3] = _TO_RAS @ (positions[order[0]] + first_px @ pixel_axes)
    deviates = grid.deviation_mm > SAME_POSITION_MM
    return SeriesGeometry(
        order=tuple(int(i) for i in order),
        shape=(len(headers), *(moved.widen((first.rows, first.columns)) if moved else (first.rows, first.columns))),
        spacing_mm=(round(float(np.linalg.norm(step)), 6), round(row_mm, 6), round(column_mm, 6)),
        affine=tuple(tuple(float(v) for v in row) for row in affine),
        note=f"slices lie up to {grid.deviation_mm:.2g} mm off an even grid" if deviates else None,
        tilt=moved,
    )


def _fit_grid(
    positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], headers: Sequence[SliceHeader], tilt: TiltRule
) -> SliceGrid:
    """The grid of sorted positions, with the digits that they are written with; of a single slice by its thickness."""
    first = headers[0]
    if len(positions) == 1:
        if not first.thickness_mm:
            raise SampleError("missing_spacing", "a single slice that states neither spacing nor thickness has no depth")
        return SliceGrid(step_mm=normal * first.thickness_mm, deviation_mm=0.0)
    digits = np.array([header.position_decimals or (_MANY_DIGITS,) * 3 for header in headers]).max(axis=0)
    rounding = 0.5 * 10.0**-digits
    return fit_slice_grid(positions, normal, rounding_mm=rounding, pixel_mm=min(first.spacing_mm or (0.0,)), tilt=tilt)


def _find_tilt(grid: SliceGrid, pixel_axes: npt.NDArray[np.float64], num_slices: int) -> Tilt | None:
    """How far slices of a sheared stack lie beside each other; along an axis on which all lie within MAX_SHIFT, not at all."""
    if not grid.tilt_degrees:
        return None
    shifts = pixel_axes @ grid.step_mm / (pixel_axes**2).sum(axis=1)
    rows, columns = (float(shift) if abs(shift) * (num_slices - 1) > MAX_SHIFT else 0.0 for shift in shifts)
    return Tilt(degrees=grid.tilt_degrees, num_slices=num_slices, shift_px=(rows, columns))


def one_per_position(headers: Sequence[SliceHeader]) -> list[int]:
    """Numbers of the headers whose position no earlier header has, which the plan counts before contents are known."""
    seen: dict[tuple[float, ...], int] = {}
    for number, header in enumerate(headers):
        seen.setdefault(place_of(header, number), number)
    return list(seen.values())


def place_of(header: SliceHeader | None, number: int) -> tuple[float, ...]:
    """The position of a slice, for comparison.

    Args:
        header: of the slice, if it could be read.
        number: of its file in the input.

    Returns:
        (x, y, z) in mm, rounded to 0.001; the file's number where the header states no position.
    """
    return tuple(round(v, 3) for v in header.position_mm) if header and header.position_mm else (float(number),)
