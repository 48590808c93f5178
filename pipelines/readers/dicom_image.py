"""Decode single DICOM files to images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.dicom import find_modality, read_pixels
from crossdim.pipelines.readers.dicom_colour import convert_to_rgb
from crossdim.pipelines.readers.dicom_errors import translate_errors
from crossdim.pipelines.readers.dicom_header import burned_in_annotation, combine_annotations
from crossdim.pipelines.readers.display_window import display_window_note
from crossdim.pipelines.readers.image_sample import build_image
from crossdim.pipelines.readers.modality_lut import ModalityTransform, parse_modality_transform
from crossdim.pipelines.readers.padding import find_padding
from crossdim.pipelines.readers.raw import RawItem
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array, Sample, Scaling
from crossdim.storage_schema.vocabulary import Modality

PADDING_NOTE = "padding outside of the field of view set to black"
INVERTED_NOTE = "inverted, the lowest value is meant to be white"


def decode(item: RawItem) -> Sample:
    """Decode a single DICOM file to an image in which zero is black and more is brighter, as the file is meant to be shown.

    Grey values follow the standard's order: padding is set apart, then the modality LUT or rescale applies, then the image is
    inverted where its lowest value is meant to be white. Colour becomes RGB.

    Returns:
        (1, H, W), uint8 for pictures of up to 8 bits, otherwise uint16 with its scaling; (3, H, W) uint8 for colour.

    Raises:
        SampleError: see :func:`crossdim.pipelines.readers.dicom.read_pixels`; rule ``depth`` or ``constant`` for values that
            cannot be stored, or show nothing.
    """
    stored = read_pixels(item.data, item.rules, colour=True)
    dataset, header, pixels = stored.dataset, stored.header, stored.pixels
    modality = find_modality(dataset, item.modality)
    scaling: Scaling | None
    with translate_errors("the grey values cannot be read"):
        if header.photometric.startswith("MONOCHROME"):
            array, scaling, notes = _decode_grey(dataset, pixels, inverted=header.inverted, modality=modality)
        else:
            array, notes = convert_to_rgb(dataset, header.photometric, pixels)
            scaling = None
    return build_image(
        item,
        array,
        (*stored.notes, *notes),
        scaling=scaling,
        modality=modality,
        spacing_mm=header.spacing_mm,
        extra=combine_annotations([burned_in_annotation(dataset)]),
    )


def _decode_grey(
    dataset: Any, pixels: Array, *, inverted: bool, modality: Modality
) -> tuple[Array, Scaling, tuple[str | None, ...]]:
    """(1, H, W), what it means, and notes."""
    transform = parse_modality_transform(dataset)
    outside = find_padding(dataset, pixels)
    values = transform.table(pixels) if transform.table else pixels
    if int(dataset.BitsAllocated) == 1:  # 0 and 255, as in a PNG of one bit
        values, transform = values * np.uint8(255), replace(transform, slope=transform.slope / 255)
    bits = 8 * values.dtype.itemsize if transform.table else int(dataset.BitsStored)
    low, high = _value_range(values, outside, bits)
    stored = _from_black(values, low, high, falling=(transform.slope < 0) != inverted)
    if outside is not None:
        stored[outside] = 0
    padding = PADDING_NOTE if outside is not None else None
    notes = (transform.note(modality), padding, INVERTED_NOTE if inverted else None, display_window_note(dataset))
    return stored[None], _scaling(transform, low, high, inverted=inverted), notes


def _value_range(values: Array, outside: npt.NDArray[np.bool_] | None, bits: int) -> tuple[int, int]:
    """The values that become black and white: of 8 bits all, of more those that occur, as detectors fill 10 to 16."""
    inside = values if outside is None else values[~outside]
    if not inside.size:
        raise SampleError("padding", "every pixel is PixelPaddingValue; nothing lies inside of the field of view")
    low, high = int(inside.min()), int(inside.max())
    if low == high:
        raise SampleError("constant", f"every pixel is {low}; there is nothing to see")
    if values.dtype == np.uint8:
        return 0, 255 if bits == 1 else (1 << min(bits, 8)) - 1
    if high - low > np.iinfo(np.uint16).max:
        raise SampleError("depth", f"pixels span {low}..{high}; images are stored with 16 bits")
    return low, high


def _from_black(values: Array, low: int, high: int, *, falling: bool) -> Array:
    """Values counted from the black end: from ``low`` up, or from ``high`` down where higher values are darker."""
    counted = np.empty(values.shape, np.uint8 if values.dtype == np.uint8 else np.uint16)
    for number, row in enumerate(values):  # by rows: in 64 bits, the whole would need several times its memory
        wide = row.astype(np.int64)
        counted[number] = np.clip(high - wide if falling else wide - low, 0, high - low)
    return counted


def _scaling(transform: ModalityTransform, low: int, high: int, *, inverted: bool) -> Scaling:
    """What stored values mean: physical values, or, in an inverted image, the distance above its black."""
    slope = abs(transform.slope)
    darkest = 0.0 if inverted else min(low * transform.slope, high * transform.slope) + transform.intercept
    return Scaling(slope=slope, intercept=darkest, low=darkest, high=darkest + slope * (high - low))
