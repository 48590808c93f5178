"""DICOM series, one file a slice, to volumes."""

from __future__ import annotations

import hashlib

import numpy as np

from pipelines.decoders.dicom import modality_of, physical, read_pixels
from pipelines.decoders.geometry import stacked
from pipelines.decoders.nifti import range_of
from pipelines.decoders.nifti_header import check_axes
from pipelines.decoders.raw import RawItem, with_note
from storage_schema.errors import SampleError
from storage_schema.sample import Sample


def decode(item: RawItem) -> Sample:
    """All files of one series as a volume. Files with equal content count once.

    Returns:
        (1, D, H, W) float32 in physical units, each slice by its own rescale; D along the slice normal.

    Raises:
        SampleError: for a slice that cannot be read, or slices that make no straight, evenly spaced volume.
    """
    unique = list({hashlib.sha256(data).digest(): data for data in item.files}.values())
    read = [read_pixels(data, item.rules) for data in unique]
    headers = [header for _, header, _ in read]
    geometry = stacked(headers)
    if headers[0].photometric == "MONOCHROME1":
        raise SampleError("photometric", "a volume of MONOCHROME1 slices is inverted; its values have no stated meaning")
    item.rules.allow_bytes(4 * int(np.prod(geometry.shape, dtype=object)), geometry.shape)
    volume_DHW = np.empty(geometry.shape, np.float32)
    for depth, number in enumerate(geometry.order):
        dataset, _, pixels = read[number]
        volume_DHW[depth] = physical(dataset, pixels)
    if not np.isfinite(volume_DHW).all():
        raise SampleError("not_finite", "rescaled voxels are NaN or infinite; RescaleSlope or RescaleIntercept is damaged")
    check_axes(np.array(geometry.affine))
    key, origin, patient = item.origin()
    sample = Sample(
        key=key,
        presentation=None,
        array=volume_DHW[None],
        modality=modality_of(read[0][0], item.modality),
        scaling=range_of(volume_DHW),
        origin=origin,
        spacing_mm=geometry.spacing_mm,
        affine=geometry.affine,
        label=item.label,
        patient=patient,
    )
    twice = len(item.files) - len(unique)
    return with_note(sample, f"{twice} files stood there twice" if twice else None)
