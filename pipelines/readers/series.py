"""Decode DICOM to volumes: series with one file per slice, and files with a frame per slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossdim.foundation.counts import count
from crossdim.pipelines.readers.dicom import common_modality, read_frames
from crossdim.pipelines.readers.dicom_errors import translate_errors
from crossdim.pipelines.readers.dicom_frames import stack_frames
from crossdim.pipelines.readers.dicom_header import (
    burned_in_annotation,
    combine_annotations,
    read_modality,
)
from crossdim.pipelines.readers.dicom_patient import check_one_patient
from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.modality_lut import ModalityTransform, parse_modality_transform
from crossdim.pipelines.readers.nifti_affine import check_axes
from crossdim.pipelines.readers.padding import find_padding
from crossdim.pipelines.readers.raw import LEFT_OUT, RawItem, add_note, check_expansion, number_files
from crossdim.pipelines.readers.series_slices import COPY_RULE, LeftOut, Slice, read_slices
from crossdim.pipelines.readers.slice_order import SeriesGeometry, stack_slices
from crossdim.pipelines.readers.volume_values import Mask, Volume, compute_range, fill_outside, offset_note
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality

#: Modalities whose values mean something by themselves (HU, activity, counts), however they are meant to be shown.
_PHYSICAL = frozenset({Modality.CT, Modality.PT, Modality.NM})
INVERTED_NOTE = "lowest value meant to be white, values kept as stated"
PADDING_NOTE = "padding outside of the field of view set to air"


def decode(item: RawItem) -> Sample:
    """Decode all files of one series to a volume.

    Equal files count once, and so do files with equal pixels at one position; a damaged one with an intact copy is left out.

    Returns:
        (1, D, H, W) float32 in physical units, each slice by its own modality LUT or rescale; D along the slice normal.
        ``extra`` tells under ``LEFT_OUT`` number, rule and reason of files that are left out.

    Raises:
        SampleError: for a slice that can be read from no file, and slices of several patients or modalities, or that make no
            straight, even volume.
    """
    check_expansion(item.num_values, sum(len(data) for data in item.files))
    read = read_slices(item)
    twice = len(item.files) - len(read.slices) - len(read.left_out)
    copies = sum(one.rule == COPY_RULE for one in read.left_out)
    damaged = len(read.left_out) - copies
    return add_note(
        _build_volume(item, read.slices, read.left_out),
        f"{count(twice, 'file')} stood there twice" if twice else None,
        f"{count(copies, 'file')} left out, with the pixels and place of another" if copies else None,
        f"{count(damaged, 'damaged file')} left out, with a sound copy" if damaged else None,
    )


def decode_frames(item: RawItem) -> Sample:
    """Decode a file with a frame per slice, whose functional groups say where each lies.

    Args:
        item: the file.

    Returns:
        As :func:`decode`.

    Raises:
        SampleError: for frames that make no straight, even volume, or several.
    """
    frames = read_frames(item.data, item.rules)
    if reason := stack_frames([frame.header for frame in frames]).reason:
        raise SampleError("multi_frame", f"{len(frames)} frames in one file: {reason}")
    read = [
        Slice(number=number, dataset=one.dataset, header=one.header, stored=one.pixels, notes=one.notes)
        for number, one in enumerate(frames)
    ]
    return _build_volume(item, read, [])


def _build_volume(item: RawItem, read: Sequence[Slice], left_out: Sequence[LeftOut]) -> Sample:
    """Stack slices to the volume of an input."""
    names_note = check_one_patient([one.dataset for one in read])
    with number_files([one.number for one in read]):
        geometry = stack_slices([one.header for one in read], tilt=item.rules.tilt)
    check_axes(np.array(geometry.affine))
    item.rules.allow_bytes(4 * int(np.prod(geometry.shape, dtype=object)), geometry.shape)
    with number_files([one.number for one in read]):
        modality = common_modality([read_modality(one.dataset) for one in read]) or item.modality
    slices = [read[place] for place in geometry.order]
    shown = display_note([one.header for one in slices], modality)
    volume_DHW, outside_DHW, notes = _read_values(slices, modality, geometry)
    fill_outside(volume_DHW, outside_DHW, modality)
    key, origin, patient = item.origin()
    sample = Sample(
        key=key,
        presentation=None,
        array=volume_DHW[None],
        modality=modality,
        scaling=compute_range(volume_DHW, outside_DHW),
        origin=origin,
        spacing_mm=geometry.spacing_mm,
        affine=geometry.affine,
        outside=outside_DHW,
        label=item.label,
        patient=patient,
        extra=combine_annotations([burned_in_annotation(one.dataset) for one in read])
        | ({LEFT_OUT: [one.row() for one in left_out]} if left_out else {}),
    )
    return add_note(
        sample,
        names_note,
        *dict.fromkeys(note for one in read for note in one.notes),
        geometry.note,
        geometry.tilt.note if geometry.tilt else None,
        *notes,
        shown,
        PADDING_NOTE if outside_DHW is not None else None,
        offset_note(volume_DHW, outside_DHW, modality),
    )


def display_note(headers: Sequence[SliceHeader], modality: Modality) -> str | None:
    """Note slices whose lowest value is meant to be white: display does not change HU, activity or counts.

    Args:
        headers: of the slices.
        modality: of the series.

    Returns:
        The note; None if no slice is meant to be shown inverted.

    Raises:
        SampleError: rule ``photometric`` for modalities whose values have no unit, so that the volume would be a negative.
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


def _read_values(
    slices: Sequence[Slice], modality: Modality, geometry: SeriesGeometry
) -> tuple[Volume, Mask | None, list[str | None]]:
    """(D, H, W) physical values of sorted slices, which of them lie outside of the field of view, if any do, and notes."""
    volume_DHW = np.empty(geometry.shape, np.float32)
    outside_DHW: Mask | None = None
    transforms = [_transform(one) for one in slices]
    _check_rescale(slices, transforms, modality)
    for depth, (one, transform) in enumerate(zip(slices, transforms, strict=True)):
        with number_files([one.number]), translate_errors("the padding cannot be read"):
            outside = find_padding(one.dataset, one.stored)
        values = transform.physical(one.stored)
        if geometry.tilt:
            values, outside = geometry.tilt.move_slice(values, outside, depth)
        volume_DHW[depth] = values
        if outside is not None:
            outside_DHW = np.zeros(geometry.shape, np.bool_) if outside_DHW is None else outside_DHW
            outside_DHW[depth] = outside
    if not np.isfinite(volume_DHW).all():
        raise SampleError("not_finite", "rescaled voxels are too large for 32 bits; RescaleSlope or RescaleIntercept is damaged")
    return volume_DHW, outside_DHW, list(dict.fromkeys(transform.note(modality) for transform in transforms))


def _transform(one: Slice) -> ModalityTransform:
    with number_files([one.number]), translate_errors("the grey values cannot be read"):
        return parse_modality_transform(one.dataset)


def _check_rescale(slices: Sequence[Slice], transforms: Sequence[ModalityTransform], modality: Modality) -> None:
    """Refuse a series of which some slices are rescaled and others do not say how; of CT, also where what is stated is 1 and 0.

    Raises:
        SampleError: rule ``missing_rescale``, with the slices that state less than the others.
    """
    hounsfield = modality is Modality.CT and any(one.stated for one in transforms)
    slope = any(one.table or one.slope != 1 for one in transforms)
    intercept = any(one.table or one.intercept != 0 for one in transforms)
    without = tuple(
        one.number
        for one, transform in zip(slices, transforms, strict=True)
        if (hounsfield and not transform.stated)
        or (slope and not transform.slope_stated)
        or (intercept and not transform.intercept_stated)
    )
    if 0 < len(without) < len(slices):
        raise SampleError(
            "missing_rescale",
            f"{len(without)} of {len(slices)} slices state no rescale, or half of one, the others do; correct their headers",
            without,
        )
