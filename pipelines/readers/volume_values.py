"""Rules for the values of every volume, whatever its format: background, range, and whether CT looks like HU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Scaling
from crossdim.storage_schema.vocabulary import Modality

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
#: Air, by definition of the Hounsfield unit.
AIR_HU = -1000.0
#: Air, lung and fat: every CT of a body has voxels in this range.
_LIGHTER_THAN_WATER_HU = (-1100.0, -50.0)
#: Above soft tissue and blood.
_DENSE_HU = 200.0
OFFSET_NOTE = (
    "CT without a voxel between -1100 and -50 HU (air, lung, fat) and some above 200: values may carry an offset, as 1024"
)


def fill_outside(volume: Volume, outside: Mask | None, modality: Modality) -> None:
    """Fill voxels outside of the field of view, in place, with the lowest value inside; in CT with at most air.

    Args:
        volume: (D, H, W), physical values.
        outside: (D, H, W) bool; None if there are none.
        modality: of the volume.

    Raises:
        SampleError: rule ``no_voxels`` if nothing is inside.
    """
    if outside is None:
        return
    if outside.all():
        raise SampleError("no_voxels", "every voxel is padding or NaN; nothing lies inside of the field of view")
    lowest = _ends(volume, outside)[0]
    volume[outside] = min(lowest, AIR_HU) if modality is Modality.CT else lowest


def compute_range(volume: Volume, outside: Mask | None = None, part: str | None = None) -> Scaling:
    """Compute the range of a volume inside of the field of view.

    Args:
        volume: (D, H, W), physical values.
        outside: (D, H, W) bool; None if there are none.
        part: of the file that the volume is, for the error; None if it is all of it.

    Returns:
        A scaling whose unit range is from the lowest to the highest value.

    Raises:
        SampleError: rule ``constant`` if all values are equal.
    """
    low, high = _ends(volume, outside)
    if low == high:
        raise SampleError("constant", f"every voxel{f' of the {part}' if part else ''} is {low:g}; there is nothing to see")
    return Scaling(low=low, high=high)


def _ends(volume: Volume, outside: Mask | None) -> tuple[float, float]:
    """The lowest and highest value inside, without a copy of the volume."""
    inside = True if outside is None else ~outside
    return float(volume.min(where=inside, initial=np.inf)), float(volume.max(where=inside, initial=-np.inf))


def offset_note(volume: Volume, outside: Mask | None, modality: Modality) -> str | None:
    """Note CT whose values cannot be HU of a body, such as values stored with 1024 added.

    Args:
        volume: (D, H, W), physical values.
        outside: (D, H, W) bool; None if there are none.
        modality: of the volume.

    Returns:
        The note; None for other modalities and for plausible values.
    """
    if modality is not Modality.CT or _ends(volume, outside)[1] <= _DENSE_HU:
        return None
    low, high = _LIGHTER_THAN_WATER_HU
    for depth, plane in enumerate(volume):  # most CT ends at its first plane
        light = (plane > low) & (plane < high)
        if (light if outside is None else light & ~outside[depth]).any():
            return None
    return OFFSET_NOTE
