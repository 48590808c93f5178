"""Single DICOM files to images."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.decoders.dicom import modality_of, read_pixels
from pipelines.decoders.raster import scaling_of
from pipelines.decoders.raw import RawItem
from storage_schema.errors import SampleError
from storage_schema.sample import Array, Sample, Scaling
from storage_schema.vocabulary import Presentation


def decode(item: RawItem) -> Sample:
    """A single DICOM file as an image; MONOCHROME1 is inverted, so that bright means dense everywhere.

    Returns:
        (1, H, W), uint8 for 8-bit pictures, otherwise uint16 with its scaling.

    Raises:
        SampleError: see :func:`pipelines.decoders.dicom.read_pixels`.
    """
    dataset, header, pixels = read_pixels(item.data, item.rules)
    stored, scaling = _as_unsigned(dataset, pixels)
    if header.photometric == "MONOCHROME1":
        stored = (stored.max() if stored.dtype == np.uint16 else np.uint8(255)) - stored
        scaling = Scaling(low=0.0, high=float(stored.max())) if stored.dtype == np.uint16 else scaling
    key, origin, patient = item.origin()
    return Sample(
        key=key,
        presentation=Presentation.IMAGE,
        array=stored[None],
        modality=modality_of(dataset, item.modality),
        scaling=scaling,
        origin=origin,
        spacing_mm=header.spacing_mm,
        label=item.label,
        patient=patient,
    )


def _as_unsigned(dataset: Any, pixels: npt.NDArray[np.generic]) -> tuple[Array, Scaling]:
    """Pixels as uint8 or uint16 from zero up, and what they mean."""
    if pixels.dtype == np.uint8:
        return pixels, scaling_of(pixels)
    low, high = int(pixels.min()), int(pixels.max())
    if high - low > np.iinfo(np.uint16).max:
        raise SampleError("depth", f"pixels span {low}..{high}; images are stored with 16 bits")
    if low == high:
        raise SampleError("constant", f"every pixel is {low}; there is nothing to see")
    slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    stored = (pixels.astype(np.int64) - low).astype(np.uint16)
    return stored, Scaling(slope=slope, intercept=intercept + slope * low, low=ends[0], high=ends[1])
