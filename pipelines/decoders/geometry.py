"""Where the slices of a series lie, from their headers alone.

Order, spacing and affine come from ImagePositionPatient along the slice normal; InstanceNumber, SliceLocation, file names
and SliceThickness are never believed where positions exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.decoders.facts import SliceHeader
from storage_schema.errors import SampleError

#: Positions nearer than this are one position; scanners write about this many digits. Ours.
SAME_POSITION_MM = 1e-3
#: Distances between slices may differ by this share of their median: rounding of positions, not a lost slice. Ours.
SPACING_TOLERANCE = 0.02
#: Direction cosines may differ by this much between slices. Ours.
COSINE_TOLERANCE = 1e-3
#: Tangent of the largest angle between stacking direction and slice normal: half a degree. Ours.
MAX_TILT = 0.01
#: LPS, DICOM's axes, to RAS.
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesGeometry:
    """A stack of slices. ``order`` sorts the files along the normal; ``affine`` maps (d, h, w, 1) to RAS mm."""

    order: tuple[int, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, ...], ...]


def same_grid(headers: Sequence[SliceHeader]) -> SliceHeader:
    """The first header, once all of them describe the same kind of slice.

    Raises:
        SampleError: rule ``mixed_...`` naming what differs, or ``missing_...`` naming what is not there.
    """
    first = headers[0]
    for name in ("orientation", "spacing_mm"):
        missing = sum(getattr(h, name) is None for h in headers)
        if missing:
            raise SampleError(
                f"missing_{name.removesuffix('_mm')}", f"{missing} of {len(headers)} slices state no {name}; a volume needs it"
            )
    for name, rule in (("rows", "mixed_size"), ("columns", "mixed_size"), ("photometric", "mixed_photometric")):
        found = sorted({str(getattr(h, name)) for h in headers})
        if len(found) > 1:
            raise SampleError(rule, f"slices of one series differ in {name}: {', '.join(found)}")
    for name, rule, tolerance in (
        ("orientation", "mixed_orientation", COSINE_TOLERANCE),
        ("spacing_mm", "mixed_spacing", SAME_POSITION_MM),
    ):
        values = np.array([getattr(h, name) for h in headers])
        spread = float(np.abs(values - values[0]).max())
        if spread > tolerance:
            raise SampleError(
                rule, f"slices of one series differ in {name} by up to {spread:.4g}; at most {tolerance:g} is rounding"
            )
    return first


def _directions(header: SliceHeader) -> npt.NDArray[np.float64]:
    """Rows: unit vectors (LPS) of the normal, of increasing row, of increasing column."""
    along_row, down = np.array(header.orientation).reshape(2, 3)
    lengths = np.linalg.norm([along_row, down], axis=1)
    if np.abs(lengths - 1).max() > COSINE_TOLERANCE * 10 or abs(along_row @ down) > COSINE_TOLERANCE * 10:
        raise SampleError("orientation", f"ImageOrientationPatient {header.orientation} is not two unit vectors at a right angle")
    return np.array([np.cross(along_row, down), down, along_row])


def stacked(headers: Sequence[SliceHeader]) -> SeriesGeometry:
    """The volume that the slices of a series make.

    Args:
        headers: one per slice, in any order.

    Raises:
        SampleError: naming what keeps them from being one straight, evenly spaced volume.
    """
    first = same_grid(headers)
    missing = sum(h.position_mm is None for h in headers)
    if missing:
        raise SampleError(
            "missing_position", f"{missing} of {len(headers)} slices state no ImagePositionPatient; their place is unknown"
        )
    axes = _directions(first)
    positions = np.array([h.position_mm for h in headers])
    order = np.argsort(positions @ axes[0], kind="stable")
    step = _step(positions[order], axes[0], first)
    row_mm, column_mm = first.spacing_mm or (0.0, 0.0)
    if min(row_mm, column_mm) <= 0:
        raise SampleError("missing_spacing", f"PixelSpacing is {first.spacing_mm}; both lengths must be positive")
    affine = np.eye(4)
    affine[:3, :3] = _TO_RAS @ np.column_stack([step, axes[1] * row_mm, axes[2] * column_mm])
    affine[:3, 3] = _TO_RAS @ positions[order[0]]
    return SeriesGeometry(
        order=tuple(int(i) for i in order),
        shape=(len(headers), first.rows, first.columns),
        spacing_mm=(round(float(np.linalg.norm(step)), 6), round(row_mm, 6), round(column_mm, 6)),
        affine=tuple(tuple(float(v) for v in row) for row in affine),
    )


def _step(positions: npt.NDArray[np.float64], normal: npt.NDArray[np.float64], first: SliceHeader) -> npt.NDArray[np.float64]:
    """Vector (LPS, mm) from one slice to the next."""
    if len(positions) == 1:
        if not first.thickness_mm or first.thickness_mm <= 0:
            raise SampleError("missing_spacing", "a single slice that states neither spacing nor thickness has no depth")
        return normal * first.thickness_mm
    gaps = np.diff(positions @ normal)
    if gaps.min() < SAME_POSITION_MM:
        repeated = int((gaps < SAME_POSITION_MM).sum())
        raise SampleError(
            "repeated_position",
            f"{repeated} slices lie where another one lies; a time series or a scan stored twice is no volume",
        )
    median = float(np.median(gaps))
    if np.abs(gaps - median).max() > SPACING_TOLERANCE * median:
        raise SampleError(
            "irregular_spacing", f"slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart; a slice may be missing"
        )
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    tilt = float(np.linalg.norm(step - (step @ normal) * normal) / (step @ normal))
    if tilt > MAX_TILT:
        raise SampleError(
            "gantry_tilt",
            f"slices are stacked {np.degrees(np.arctan(tilt)):.1f} degrees off their normal; correct the gantry tilt first",
        )
    return np.asarray(step, np.float64)


def one_per_position(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Headers without those whose position is taken; what the plan counts before contents are known."""
    seen: dict[tuple[float, ...], SliceHeader] = {}
    for number, header in enumerate(headers):
        place = tuple(round(v, 3) for v in header.position_mm) if header.position_mm else (float(number),)
        seen.setdefault(place, header)
    return list(seen.values())
