"""Convert physical values to 16-bit integers in which air is 0."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from crossdim.foundation.settings import to_document
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import SampleError, UsageError
from crossdim.storage_schema.sample import Sample, Scaling
from crossdim.storage_schema.vocabulary import Modality

#: Largest stored value.
FULL = 32767


@dataclass(frozen=True, kw_only=True, slots=True)
class Intensity:
    """Which physical values a network sees as 0..1.

    CT has units, so it gets one window for all volumes, in steps of 1 HU. Other modalities have none: the window is the
    volume's own percentiles over the voxels that are not zero.

    Attributes:
        window_hu (HU): lowest and highest value of CT, in whole HU.
        percentiles (%): of other modalities, the percentiles of a volume that are its lowest and highest value.
    """

    window_hu: tuple[float, float]
    percentiles: tuple[float, float] = (0.5, 99.5)  # nnU-Net's foreground percentiles; ours for MR

    def __post_init__(self) -> None:
        low, high = self.window_hu
        if not (low < high <= low + FULL and low == round(low)):
            raise UsageError(f"window_hu is (low, high) in whole HU, at most {FULL} wide; found {self.window_hu}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UsageError(f"percentiles rise within 0..100; found {self.percentiles}")


def store(sample: Sample, config: Intensity) -> Sample:
    """Clip a volume to its window and store it as int16 from 0 (the window's low end, air) up.

    What lies outside of the field of view is stored as 0 and has no part in the window.

    Args:
        sample: (C, D, H, W) in physical values, HU for CT.
        config: the window for CT, and the percentiles that bound the window of other modalities.

    Returns:
        (C, D, H, W) int16; ``scaling`` leads back to physical values.

    Raises:
        SampleError: rule ``constant`` if the window has no width.
    """
    volume = sample.array.astype(np.float32, copy=False)
    if sample.modality is Modality.CT:
        (low, high), slope = config.window_hu, 1.0
        to_steps = partial(_to_whole_units, low=low, high=high)
    else:
        inside = volume if sample.outside is None else volume[:, ~sample.outside]
        low, high = compute_own_window(inside, config.percentiles)
        slope = (high - low) / FULL
        to_steps = partial(_to_steps, low=low, high=high, slope=slope)
    stored = np.empty(volume.shape, np.int16)
    for depth in range(volume.shape[1]):  # by planes: each step on a whole volume would hold another one
        stored[:, depth] = to_steps(volume[:, depth])
    if sample.outside is not None:
        stored[:, sample.outside] = 0
    scaling = Scaling(slope=slope, intercept=low, low=low, high=high)
    return replace(sample, array=stored, scaling=scaling, outside=None)


def _to_whole_units(volume: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.float32]:
    units: npt.NDArray[np.float32] = np.rint(np.clip(volume, low, high)) - np.float32(low)
    return units


def _to_steps(volume: npt.NDArray[np.float32], low: float, high: float, slope: float) -> npt.NDArray[np.float32]:
    steps = np.rint((np.clip(volume, low, high) - np.float32(low)) / np.float32(slope))
    within: npt.NDArray[np.float32] = np.clip(steps, 0, FULL)
    return within


def compute_own_window(volume: npt.NDArray[np.float32], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Compute percentiles of a volume's voxels that are not zero: scanners and skull strippers write zero for nothing.

    Args:
        volume: any shape, physical values.
        percentiles: low and high, 0 to 100.

    Returns:
        Low and high end, in physical values.

    Raises:
        SampleError: rule ``constant`` if the two are equal.
    """
    shown = volume[volume != 0]
    shown = shown if shown.size else volume.copy()
    low, high = (float(v) for v in np.percentile(shown, percentiles, overwrite_input=True))
    if not low < high:
        raise SampleError("constant", f"percentiles {percentiles} of the voxels are both {low:g}; there is nothing to see")
    return low, high


@dataclass(frozen=True, kw_only=True, slots=True)
class IntensityStage(Stage):
    """:func:`store` with its settings."""

    name: ClassVar[str] = "intensity"

    config: Intensity

    def __call__(self, sample: Sample) -> Sample:
        """The volume as stored."""
        return store(sample, self.config)

    def preprocessing(self) -> dict[str, object]:
        """The windows."""
        return {self.name: to_document(self.config)}
