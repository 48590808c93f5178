"""The header of a volume in one file, whatever its format: shape, numbers, where they stand in the file and in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.raw import ReadRules
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.vocabulary import Modality

#: Of files that state no place in the patient.
NO_PLACE_NOTE = "no voxel size or orientation in the file, taken as 1 mm and LPS with axes (z, y, x)"
#: Steps of one voxel along the axes (z, y, x) of an array in LPS, to (right, anterior, superior), mm.
_STEPS_ZYX = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])


def build_lps_affine(axes: Sequence[int], spacing_mm: npt.NDArray[np.float64] | float = 1.0) -> npt.NDArray[np.float64]:
    """Build the affine of an array with axes (z, y, x) in LPS, whose first voxel is the origin.

    Args:
        axes: places among (z, y, x) of the file's axes (x, y, z), x fastest.
        spacing_mm: along the file's axes.

    Returns:
        (4, 4): (x, y, z, 1) to millimetres (right, anterior, superior).
    """
    affine = np.eye(4)
    affine[:3, :3] = _STEPS_ZYX[list(axes)].T * spacing_mm
    return affine


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeHeader:
    """A header, checked. Axes are the file's: (x, y, z), x fastest.

    Attributes:
        shape_xyz: voxels.
        num_frames: time points; they follow each other in the file.
        dtype: of a stored voxel, with its byte order.
        payload_offset (bytes): where the numbers begin in the file, or the compressed stream that holds them.
        window_bits: of zlib, which say how the payload is compressed: 15 for zlib, 31 for gzip; None for not at all.
        skip_bytes: of the payload, inflated, before the first voxel.
        slope: physical value = stored value x ``slope`` + ``intercept``.
        intercept: see ``slope``.
        affine_xyz: (x, y, z, 1) to millimetres (right, anterior, superior).
        notes: what was decided.
        labels: whether the header says that the numbers are labels.
        modality: where the header states one.
    """

    shape_xyz: tuple[int, int, int]
    num_frames: int = 1
    dtype: np.dtype[Any]
    payload_offset: int = 0
    window_bits: int | None = None
    skip_bytes: int = 0
    slope: float = 1.0
    intercept: float = 0.0
    affine_xyz: npt.NDArray[np.float64]
    notes: tuple[str, ...] = ()
    labels: bool = False
    modality: Modality | None = None

    @property
    def num_voxels(self) -> int:
        """Of one time point."""
        x, y, z = self.shape_xyz
        return x * y * z

    @property
    def frame_bytes(self) -> int:
        """Bytes of one time point."""
        return self.num_voxels * self.dtype.itemsize

    @property
    def payload_bytes(self) -> int:
        """Where the last voxel ends in the payload."""
        return self.skip_bytes + self.frame_bytes * self.num_frames

    @property
    def spacing_xyz_mm(self) -> tuple[float, float, float]:
        """Voxel size along (x, y, z)."""
        x, y, z = (round(float(v), 6) for v in np.linalg.norm(self.affine_xyz[:3, :3], axis=0))
        return x, y, z

    def allow(self, rules: ReadRules) -> None:
        """Refuse a volume that is too large, before anything is allocated, and a time series if the rules do.

        Raises:
            SampleError: rule ``too_large`` or ``frames``.
        """
        if self.num_frames > 1 and rules.frames == "refuse":
            raise SampleError("frames", f"{self.num_frames} time points; the recipe refuses time series")
        # One frame is held, as float32 at least.
        rules.allow_bytes(max(self.frame_bytes, self.num_voxels * 4), self.shape_xyz)
