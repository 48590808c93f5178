"""DICOM series, one file a slice, to volumes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.decoders.dicom import modality_of, read_pixels, reading
from pipelines.decoders.facts import SliceHeader
from pipelines.decoders.geometry import stacked
from pipelines.decoders.modality_lut import ModalityTransform, modality_transform
from pipelines.decoders.nifti_affine import check_axes
from pipelines.decoders.padding import padded
from pipelines.decoders.raw import RawItem, with_note
from pipelines.decoders.volume_values import Mask, Volume, fill_outside, offset_note, range_of
from storage_schema.errors import SampleError
from storage_schema.sample import Array, Sample
from storage_schema.vocabulary import Modality

#: Modalities whose values mean something by themselves (HU, activity, counts), however they are meant to be shown.
_PHYSICAL = frozenset({Modality.CT, Modality.PT, Modality.NM})
INVERTED_NOTE = "lowest value meant to be white, values kept as stated"
PADDING_NOTE = "padding outside of the field of view set to air"
#: One slice: its file, header and stored pixels.
Slice = tuple[Any, SliceHeader, Array]


def decode(item: RawItem) -> Sample:
    """All files of one series as a volume. Files with equal content count once.

    Returns:
        (1, D, H, W) float32 in physical units, each slice by its own modality LUT or rescale; D along the slice normal.

    Raises:
        SampleError: for a slice that cannot be read, or slices that make no straight, evenly spaced volume.
    """
    unique = list({hashlib.sha256(data).digest(): data for data in item.files}.values())
    read = [read_pixels(data, item.rules) for data in unique]
    geometry = stacked([header for _, header, _ in read])
    check_axes(np.array(geometry.affine))
    item.rules.allow_bytes(4 * int(np.prod(geometry.shape, dtype=object)), geometry.shape)
    modality = modality_of(read[0][0], item.modality)
    slices = [read[number] for number in geometry.order]
    shown = display_note([header for _, header, _ in slices], modality)
    with reading("the grey values cannot be read"):
        transforms = [modality_transform(dataset) for dataset, _, _ in slices]
        volume_DHW, outside_DHW = _values(slices, transforms)
    fill_outside(volume_DHW, outside_DHW, modality)
    key, origin, patient = item.origin()
    sample = Sample(
        key=key,
        presentation=None,
        array=volume_DHW[None],
        modality=modality,
        scaling=range_of(volume_DHW, outside_DHW),
        origin=origin,
        spacing_mm=geometry.spacing_mm,
        affine=geometry.affine,
        outside=outside_DHW,
        label=item.label,
        patient=patient,
    )
    twice = len(item.files) - len(unique)
    return with_note(
        sample,
        f"{twice} files stood there twice" if twice else None,
        *dict.fromkeys(transform.note(modality) for transform in transforms),
        shown,
        PADDING_NOTE if outside_DHW is not None else None,
        offset_note(volume_DHW, outside_DHW, modality),
    )


def display_note(headers: Sequence[SliceHeader], modality: Modality) -> str | None:
    """What is known of slices whose lowest value is meant to be white: display does not change HU, activity or counts.

    Raises:
        SampleError: rule ``photometric`` where values have no meaning of their own, so that they would show the negative.
    """
    inverted = sum(header.inverted for header in headers)
    if not inverted:
        return None
    if modality not in _PHYSICAL:
        raise SampleError(
            "photometric",
            f"{inverted} of {len(headers)} slices are meant to be shown inverted (MONOCHROME1 or PresentationLUTShape INVERSE), "
            f"and values of {modality} have no unit of their own; convert the series",
        )
    return INVERTED_NOTE


def _values(slices: Sequence[Slice], transforms: Sequence[ModalityTransform]) -> tuple[Volume, Mask | None]:
    """(D, H, W) physical values, and which of them lie outside of the field of view, if any do."""
    shape_DHW = (len(slices), *slices[0][2].shape)
    volume_DHW = np.empty(shape_DHW, np.float32)
    outside_DHW: Mask | None = None
    for depth, ((dataset, _, stored), transform) in enumerate(zip(slices, transforms, strict=True)):
        volume_DHW[depth] = transform.physical(stored)
        outside = padded(dataset, stored)
        if outside is not None:
            outside_DHW = np.zeros(shape_DHW, np.bool_) if outside_DHW is None else outside_DHW
            outside_DHW[depth] = outside
    if not np.isfinite(volume_DHW).all():
        raise SampleError("not_finite", "rescaled voxels are too large for 32 bits; RescaleSlope or RescaleIntercept is damaged")
    return volume_DHW, outside_DHW
