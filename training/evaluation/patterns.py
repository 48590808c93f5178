"""How much of an error is aligned with the patch grid. MAESIL names such artefacts as a remaining problem.

A pattern that repeats with patches of p voxels has its power at p's frequency and its harmonics, k / p cycles per voxel. The
measure is the power there over the power of the frequencies between them: 1 for errors that are independent of the grid.

Axes: D depth, H height, W width. The measure is ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import GeometryError

Floats = npt.NDArray[np.float32]


class GridPattern:
    """Measures the error of a volume that comes in slabs, along its rows and along its columns.

    Args:
        patch: rows and columns of a patch, voxels.
    """

    def __init__(self, patch: tuple[int, int]) -> None:
        if min(patch) < 2:
            raise GeometryError(f"patches of at least 2 voxels have a pattern; found {patch}")
        self._patch = patch
        self._powers: list[npt.NDArray[np.float64]] = []

    def add(self, error_DHW: Floats) -> None:
        """Add the next slab."""
        powers = [_power(error_DHW, axis, edge) for axis, edge in zip((1, 2), self._patch, strict=True)]
        self._powers = [a + b for a, b in zip(self._powers, powers, strict=True)] if self._powers else powers

    @property
    def ratio(self) -> float:
        """Power at the patch frequency and its harmonics over the power between them, the larger of both axes."""
        return max(_peaks(power, edge) for power, edge in zip(self._powers, self._patch, strict=True))


def _power(error_DHW: Floats, axis: int, edge: int) -> npt.NDArray[np.float64]:
    """Power spectrum along an axis, summed over the others; the axis is cut to an even number of patches."""
    length = error_DHW.shape[axis] // (2 * edge) * (2 * edge)
    if length < 4 * edge:
        raise GeometryError(f"a pattern of {edge} voxels is measured over at least 4 patches; found shape {error_DHW.shape}")
    lines = np.moveaxis(error_DHW, axis, -1)[..., :length]
    # A window that is 0 at both ends keeps slow changes, which are not periodic, out of high frequencies.
    window = np.hanning(length + 1)[:-1]
    spectrum = np.fft.rfft(lines * window, axis=-1)
    return np.asarray((spectrum.real**2 + spectrum.imag**2).reshape(-1, spectrum.shape[-1]).sum(axis=0))


def _peaks(power: npt.NDArray[np.float64], edge: int) -> float:
    """Mean over harmonics of the power of a peak over that around it; the window spreads a peak over one bin on each side."""
    spacing = (len(power) - 1) * 2 // edge
    peaks = np.arange(1, edge // 2 + 1) * spacing
    reach = np.arange(2, spacing // 2 + 1)
    around = peaks[:, None] + np.concatenate([-reach, reach])
    # Beyond the highest frequency the spectrum is mirrored.
    around = np.where(around >= len(power), 2 * (len(power) - 1) - around, around)
    return float((power[peaks] / np.maximum(power[around].mean(axis=1), np.finfo(np.float64).tiny)).mean())
