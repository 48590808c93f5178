"""Samples of images: what every reader of images ends with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from crossdim.pipelines.readers.raw import RawItem, add_note
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array, Sample, Scaling
from crossdim.storage_schema.vocabulary import Modality, Presentation


def build_image(
    item: RawItem,
    array_CHW: Array,
    notes: Iterable[str | None] = (),
    *,
    scaling: Scaling | None = None,
    modality: Modality | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    extra: Mapping[str, object] | None = None,
) -> Sample:
    """Build the sample of an input that is one image.

    Args:
        item: the input.
        array_CHW: its pixels.
        notes: of the reader; None and empty ones are left out.
        scaling: what the pixels mean; None for :func:`compute_scaling`.
        modality: that a header states; None for the one of the input.
        spacing_mm: of the pixels, (y, x); None if it is not known.
        extra: further columns of the catalog.

    Returns:
        The sample. Without a known patient, its content stands for one.

    Raises:
        SampleError: rule ``constant``, see :func:`compute_scaling`.
    """
    key, origin, patient = item.origin()
    sample = Sample(
        key=key,
        presentation=Presentation.IMAGE,
        array=array_CHW,
        modality=modality or item.modality,
        scaling=scaling or compute_scaling(array_CHW),
        origin=origin,
        spacing_mm=spacing_mm,
        label=item.label,
        patient=patient,
        extra=dict(extra or {}),
    )
    return add_note(sample, *notes)


def compute_scaling(array: Array) -> Scaling:
    """0..255 for 8 bits; the values that occur for 16, of which detectors fill 10 to 16.

    Raises:
        SampleError: rule ``constant`` for an image that shows nothing.
    """
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise SampleError("constant", f"every pixel is {low:g}; there is nothing to see")
    return Scaling(low=0.0, high=255.0) if array.dtype == np.uint8 else Scaling(low=low, high=high)
