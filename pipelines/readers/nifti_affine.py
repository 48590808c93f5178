"""Where the voxels of a NIfTI file lie, in millimetres: sform, qform and pixdim, held against each other.

The rules, each told in the catalog's note where it decides:

1. sform, if it is sound and its voxel sizes are those of pixdim within 1 %.
2. If they differ, qform (whose sizes are pixdim's); without one nobody can tell which is right: refused as ``sform_pixdim``.
3. If sform is stated and zero or damaged, qform.
4. If only qform is stated, qform; if neither, pixdim alone, x to the left as in Analyze.

Lengths are in the unit of ``xyzt_units``; unknown, which most writers leave, is millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from crossdim.pipelines.reasons import format_foreign_text
from crossdim.storage_schema.errors import SampleError

Affine = npt.NDArray[np.float64]
#: |sin| of the largest angle by which voxel axes may miss the right angle: 0.6 degrees, the rounding of real headers; ours.
MAX_SHEAR = 0.01
#: Share by which voxel sizes, and difference by which direction cosines, of two statements may differ. Ours.
AGREEMENT = 0.01
#: Voxel sizes below this are taken for zero. Far below any microscope's; ours.
_NO_LENGTH_MM = 1e-6
#: Millimetres of a spatial unit of ``xyzt_units``: metre, millimetre, micrometre.
_UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}
_SPATIAL_BITS = 7

UNITS_NOTE = "unit of lengths not stated, taken as mm"
NO_ORIENTATION_NOTE = "no orientation in the header, taken as LAS"
ZERO_SFORM_NOTE = "sform is zero or damaged, qform taken"
PIXDIM_NOTE = "pixdim is not positive, sform taken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """``affine_xyz`` maps (x, y, z, 1) to (right, anterior, superior) mm; ``notes`` tell what was decided."""

    affine_xyz: Affine
    notes: tuple[str, ...]


def compute_placement(header: Any) -> Placement:
    """Compute the affine of a nibabel header (read without its checks), by the rules above.

    Raises:
        SampleError: rule ``sform_pixdim``, ``affine`` (a quaternion that is none), ``singular_affine`` or ``sheared_affine``.
    """
    unit_mm = _UNIT_MM.get(int(header["xyzt_units"]) & _SPATIAL_BITS)
    sizes = _read_sizes(header)
    affine, notes = _choose_affine(header, sizes)
    affine = affine.copy()
    affine[:3] *= unit_mm or 1.0
    check_axes(affine)
    return Placement(affine_xyz=affine, notes=(*notes, *([] if unit_mm else [UNITS_NOTE])))


def _read_sizes(header: Any) -> npt.NDArray[np.float64]:
    """Voxel sizes of (x, y, z) by pixdim, NaN where it states none; the header is given absolute values, as nibabel does."""
    num_axes = int(header["dim"][0])
    raw = np.array(header["pixdim"][1:4], np.float64)
    header["pixdim"][0] = -1 if header["pixdim"][0] == -1 else 1  # qfac; 0 stands for 1
    header["pixdim"][1:4] = np.abs(raw)
    stated = np.isfinite(raw) & (raw > 0) & (np.arange(3) < num_axes)
    return np.where(stated, raw, np.nan)


def _choose_affine(header: Any, sizes: npt.NDArray[np.float64]) -> tuple[Affine, tuple[str, ...]]:
    sform = np.asarray(header.get_sform(), np.float64) if int(header["sform_code"]) > 0 else None
    if sform is None:
        if int(header["qform_code"]) > 0:
            return _qform(header), ()
        return np.asarray(header.get_base_affine(), np.float64), (NO_ORIENTATION_NOTE,)
    qform = _read_sound_qform(header)
    if not _is_sound(sform):
        return (sform, ()) if qform is None else (qform, (ZERO_SFORM_NOTE,))
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if np.nanmax(np.append(np.abs(lengths / sizes - 1), 0)) > AGREEMENT:
        return _by_qform(qform, lengths, sizes)
    axes = min(int(header["dim"][0]), 3)
    notes = [PIXDIM_NOTE] if np.isnan(sizes[:axes]).any() else []
    return sform, (*notes, *_describe_turn(sform, qform))


def _by_qform(
    qform: Affine | None, lengths: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]
) -> tuple[Affine, tuple[str, ...]]:
    message = f"sform has voxels of {_product(lengths)} and pixdim {_product(sizes)}"
    if qform is None:
        raise SampleError("sform_pixdim", f"{message}, and no qform says which is right; correct the header")
    return qform, (f"{message}, qform and pixdim taken",)


def _product(lengths: npt.NDArray[np.float64]) -> str:
    return " x ".join("?" if np.isnan(v) else f"{v:.4g}" for v in lengths)


def _describe_turn(sform: Affine, qform: Affine | None) -> tuple[str, ...]:
    """A note if a valid qform points elsewhere than sform, or begins more than a voxel away."""
    if qform is None:
        return ()
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    directions = [part[:3, :3] / np.linalg.norm(part[:3, :3], axis=0) for part in (sform, qform)]
    if np.abs(directions[0] - directions[1]).max() <= AGREEMENT:
        shift = float(np.linalg.norm(sform[:3, 3] - qform[:3, 3]))
        return (f"origins of sform and qform lie {shift:.3g} apart, sform taken",) if shift > lengths.max() else ()
    degrees = np.degrees(np.arccos(np.clip((directions[0] * directions[1]).sum(axis=0), -1, 1))).max()
    return (f"sform and qform differ by {degrees:.3g} degrees, sform taken",)


def _is_sound(affine: Affine) -> bool:
    """Whether an affine is finite and no voxel axis has no length or lies along the others."""
    if not np.isfinite(affine).all():
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((lengths > 0).all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > MAX_SHEAR)


def _qform(header: Any) -> Affine:
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, nibabel.spatialimages.HeaderDataError) as error:
        raise SampleError("affine", f"the header's orientation cannot be read: {format_foreign_text(error)}") from error


def _read_sound_qform(header: Any) -> Affine | None:
    """The qform if one is stated and valid; without a sform it is not needed."""
    if int(header["qform_code"]) < 1:
        return None
    try:
        qform = _qform(header)
    except SampleError:
        return None
    return qform if _is_sound(qform) else None


def check_axes(affine: Affine) -> None:
    """Refuse an affine whose voxel axes are not three lengths at right angles.

    Raises:
        SampleError: rule ``singular_affine`` or ``sheared_affine``.
    """
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (lengths < _NO_LENGTH_MM).any():
        raise SampleError("singular_affine", f"voxel sizes are {lengths.tolist()} mm by the affine; all must be positive")
    cosines = (affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths)
    worst = float(np.abs(cosines - np.eye(3)).max())
    if worst > MAX_SHEAR:
        degrees = float(np.degrees(np.arcsin(min(worst, 1.0))))
        raise SampleError(
            "sheared_affine", f"voxel axes miss the right angle by {degrees:.1f} degrees; resample the volume to a straight grid"
        )
