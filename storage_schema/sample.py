"""Sample: an array with its meaning: modality, scaling, spacing, origin and label."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.vocabulary import Modality, Presentation, Split

Array = npt.NDArray[Any]
Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """What stored numbers mean.

    ``physical = stored * slope + intercept`` (HU for CT, as in DICOM). ``low`` and ``high``, in physical units, are what a
    network sees as 0 and 1.
    """

    slope: float = 1.0
    intercept: float = 0.0
    low: float
    high: float

    def __post_init__(self) -> None:
        numbers = (self.slope, self.intercept, self.low, self.high)
        if not (all(map(math.isfinite, numbers)) and self.high > self.low and self.slope):
            raise GeometryError(
                f"scaling needs finite numbers, a slope and low < high; found slope={self.slope}, intercept={self.intercept}, "
                f"low={self.low}, high={self.high}"
            )

    def physical(self, stored: Array) -> npt.NDArray[np.float32]:
        """Stored values in physical units (HU for CT), float32."""
        return stored.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)

    def unit_factors(self) -> tuple[np.float32, np.float32]:
        """Factor and summand by which stored values become unit range."""
        span = self.high - self.low
        return np.float32(self.slope / span), np.float32((self.intercept - self.low) / span)

    def unit(self, stored: Array) -> npt.NDArray[np.float32]:
        """Stored values as 0..1, float32; one multiply-add, no clipping (the pipeline has clipped)."""
        factor, summand = self.unit_factors()
        return stored.astype(np.float32) * factor + summand


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a sample came from."""

    uri: str
    sha256: str
    part: str = "whole"  # "frame=3", "box=17": which piece of the source


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One training sample, or a volume that training samples are cut from.

    Attributes:
        key: 32 hex digits, see :func:`crossdim.storage_schema.digest.sample_key`.
        presentation: the form of ``array``; None while it is a whole volume between reader and superpatch stage.
        array: (C, H, W) for images, (C, D, H, W) otherwise; stored values, see ``scaling``.
        spacing_mm: voxel size along the spatial axes of ``array``; None where depth is no length (pseudo-3D) or unknown.
        affine: 4 x 4, maps (d, h, w, 1) of ``array`` to (right, anterior, superior) mm; None for images.
        outside: (D, H, W) bool, voxels outside of the field of view, which have no value of their own: stored as air, and left
            out of percentiles; None where there are none, and once intensities are stored.
        origin_zyx: index of the superpatch's first voxel in the volume that it was cut from.
        label: class name given by whoever published the data.
        patient: hashed patient, or hashed source where no patient is known; all samples of one patient are in one split.
        split: that whoever published the data states; None where it is drawn.
    """

    key: str
    presentation: Presentation | None
    array: Array
    modality: Modality
    scaling: Scaling
    origin: Origin
    spacing_mm: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    outside: npt.NDArray[np.bool_] | None = None
    origin_zyx: tuple[int, int, int] | None = None
    label: str | None = None
    patient: str | None = None
    split: Split | None = None
    foreground: float | None = None
    extra: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rank = 3 if self.presentation is Presentation.IMAGE else 4
        if self.array.ndim != rank:
            axes = "(C, H, W)" if rank == 3 else "(C, D, H, W)"
            raise GeometryError(f"sample {self.key}: {self.presentation or 'volume'} is {axes}; found shape {self.array.shape}")
        if self.array.dtype.hasobject:
            raise GeometryError(f"sample {self.key}: arrays of objects are refused (they need pickle)")
        if self.outside is not None and self.outside.shape != self.array.shape[1:]:
            raise GeometryError(f"sample {self.key}: outside {self.outside.shape} does not fit shape {self.array.shape}")
        if self.spacing_mm is not None and len(self.spacing_mm) != rank - 1:
            raise GeometryError(f"sample {self.key}: spacing_mm {self.spacing_mm} does not fit shape {self.array.shape}")

    def unit(self) -> npt.NDArray[np.float32]:
        """The array as a network sees it: 0..1, float32."""
        return self.scaling.unit(self.array)
