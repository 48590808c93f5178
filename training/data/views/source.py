"""The pixels of a sample that its views are cut from, as stored or in unit range."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.pseudo3d import Pseudo3D, fold
from crossdim.storage_schema.sample import Array, Sample
from crossdim.storage_schema.vocabulary import Presentation

Floats = npt.NDArray[np.float32]


def normalise(array: Floats) -> Floats:
    """Zero mean and unit deviation; a constant array becomes zeros."""
    deviation = float(array.std())
    return np.asarray((array - array.mean()) / (deviation if deviation > 1e-6 else 1.0), np.float32)


def stored_image(sample: Sample, spec: Pseudo3D) -> Array:
    """The image of a sample in stored values: folded back from pseudo-3D, or as it is.

    Args:
        sample: an image or its pseudo-3D view.
        spec: geometry of the stored view.

    Returns:
        (H, W).

    Raises:
        RunError: if the stored pseudo-3D view cannot be folded exactly.
    """
    if sample.presentation is Presentation.IMAGE:
        return np.asarray(sample.array[0])
    if not spec.reversible:
        raise RunError(
            f"sample {sample.key}: its pseudo-3D view (window {spec.window}, stride {spec.stride}) cannot be folded exactly"
        )
    height, width = sample.array.shape[2] * spec.window, sample.array.shape[3] * spec.window
    return np.asarray(fold(sample.array, spec, height, width)[0])


def image_of(sample: Sample, spec: Pseudo3D) -> Floats:
    """The image of a sample in unit range; folded before scaling, so that small integers are moved and not floats.

    Args:
        sample: an image or its pseudo-3D view.
        spec: geometry of the stored view.

    Returns:
        (H, W) float32.
    """
    return sample.scaling.unit(stored_image(sample, spec))
