"""DICOM headers: how a file is recognised, and what it says before any pixel is read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from crossdim.pipelines.readers.deflated import inflate_dataset
from crossdim.pipelines.readers.dicom_cut import HeaderStream, check_no_image, truncated_error
from crossdim.pipelines.readers.dicom_errors import translate_errors
from crossdim.pipelines.readers.dicom_frames import FrameStack, flatten_frames, has_frame_groups, stack_frames
from crossdim.pipelines.readers.dicom_mosaic import read_mosaic
from crossdim.pipelines.readers.dicom_terms import SEGMENTATION_CLASSES, UNKNOWN_TERM, known_uid
from crossdim.pipelines.readers.header_info import HeaderInfo, SliceHeader
from crossdim.pipelines.readers.raw import HEAD_BYTES, ReadRules
from crossdim.pipelines.readers.signatures import Unread
from crossdim.pipelines.readers.volume_tags import read_volume_tags
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.vocabulary import MODALITY_WORDS, Modality

#: Name of the format.
DICOM = "dicom"
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_SOP_CLASS_TAG = 0x00080016
#: FloatPixelData, DoubleFloatPixelData and PixelData.
FLOAT_TAGS = (0x7FE00008, 0x7FE00009)
_PIXEL_TAGS = (*FLOAT_TAGS, 0x7FE00010)
#: PhotometricInterpretation: grey, colour that pydicom turns into RGB, and numbers of colours.
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
RGB = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"})
PALETTE = "PALETTE COLOR"


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are a DICOM file, with its preamble or, as old archives have them, without."""
    if head[128:132] == b"DICM":
        return True
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    spelled = head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"SH", b"LO", b"DA")
    return len(head) > 16 and group in (2, 8) and element <= 0x18 and (spelled or int.from_bytes(head[4:8], "little") <= 64)


def _parse_header(stream: HeaderStream) -> tuple[Any, BaseTag | None]:
    """Parse everything before the pixels; return it, and the tag of the pixels if they follow."""
    seen: list[BaseTag] = []

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        if tag in _PIXEL_TAGS:
            seen.append(tag)
        return bool(seen)

    dataset = read_partial(stream, stop_when=at_pixels, force=True)
    return dataset, seen[0] if seen else None


def read_header(data: bytes, rules: ReadRules, *, whole: bool = True) -> HeaderInfo | Unread:
    """Read the header of a DICOM file.

    Args:
        data: the file, or its beginning.
        rules: the size guard.
        whole: whether ``data`` is all of it.

    Returns:
        The header of an image; for an object that is no image and does not claim to be one (an index, a report, a plan), what
        it is.

    Raises:
        SampleError: if the header cannot be read, or promises pixels that are missing.
        EOFError: if ``data`` is a beginning that ends before the pixels begin.
    """
    stream = HeaderStream()
    try:
        with translate_errors("the DICOM header cannot be read"):
            stream = HeaderStream(inflate_dataset(data, whole=False))
            dataset, pixel_tag = _parse_header(stream)
    except SampleError as error:
        if whole:
            raise (truncated_error() if stream.ends_inside_element else error) from error
        raise EOFError("more bytes are needed") from error
    if pixel_tag is None and not whole:
        raise EOFError("more bytes are needed")
    with translate_errors("the DICOM header cannot be read"):
        found = _build_header_info(dataset, pixel_tag, rules, ends_inside_element=stream.ends_inside_element)
    return found or _identify_without_pixels(data)


def _build_header_info(
    dataset: Any, pixel_tag: BaseTag | None, rules: ReadRules, *, ends_inside_element: bool
) -> HeaderInfo | None:
    sop_class = _sop_class(dataset)
    if sop_class == DIRECTORY_CLASS:
        return None
    if pixel_tag is None:
        if max(dataset.keys(), default=0) <= _SOP_CLASS_TAG and ends_inside_element:
            raise truncated_error()  # within the SOP class, perhaps, whose beginning may be another one
        check_no_image(sop_class, ends_inside_element=ends_inside_element)
        if "Rows" not in dataset:
            return None
        raise SampleError("no_pixels", "the DICOM header describes a picture, but the file has no PixelData")
    header = read_slice_header(dataset, sop_class, float_pixels=pixel_tag in FLOAT_TAGS)
    allow_image(header, rules)
    stack = _stack_frames(dataset, header, sop_class)
    geometry = stack.geometry if stack else None
    return HeaderInfo(
        format=DICOM,
        shape=geometry.shape if geometry else (header.rows, header.columns),
        spacing_mm=geometry.spacing_mm if geometry else header.spacing_mm,
        affine=tuple(tuple(row[axis] for axis in (2, 1, 0, 3)) for row in geometry.affine) if geometry else None,
        modality=read_modality(dataset),
        patient_id=patient_identity(dataset) or None,
        patient_names=_patient_names(dataset),
        study=read_text(dataset, "StudyInstanceUID"),
        series=read_text(dataset, "SeriesInstanceUID"),
        burned_in_annotation=burned_in_annotation(dataset),
        slice=replace(header, frames_fault=stack.reason) if stack else header,
    )


def _stack_frames(dataset: Any, header: SliceHeader, sop_class: str) -> FrameStack | None:
    """What frames or tiles make; None for one image, and for frames of which the header states nothing."""
    if header.mosaic and header.frames == 1:
        return _stack_mosaic(dataset, header)
    if header.frames == 1 or header.segmentation or not has_frame_groups(dataset):
        return None
    return stack_frames([read_slice_header(frame, sop_class) for frame in flatten_frames(dataset, header.frames)])


def _stack_mosaic(dataset: Any, header: SliceHeader) -> FrameStack:
    try:
        return stack_frames(read_mosaic(dataset, header).slices)
    except SampleError as error:
        return FrameStack(geometry=None, reason=error.reason)


def _identify_without_pixels(data: bytes) -> Unread:
    """A DICOM object that is no image: an index of other files, a report, a plan."""
    is_index = DIRECTORY_CLASS.encode() in data[:HEAD_BYTES]
    return Unread(format="DICOMDIR" if is_index else "DICOM without pixels", is_image=is_index)


def read_modality(dataset: Any) -> Modality | None:
    """The header's modality; OT for one that is not in our list; None where it states none."""
    stated = str(dataset.get("Modality") or "").strip().lower()
    return MODALITY_WORDS.get(stated, Modality.OT) if stated else None


def _sop_class(dataset: Any) -> str:
    """The SOP class of the dataset, or, where it has none yet, of the file meta information."""
    stated = dataset.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID")
    return str(stated or "").strip(" \0")


def allow_image(header: SliceHeader, rules: ReadRules) -> None:
    """Check the sizes in a header against the limits: one frame as an image, all frames as a volume.

    Args:
        header: of one file.
        rules: with the limits.

    Raises:
        SampleError: rule ``too_large``.
    """
    shape, values = (header.rows, header.columns), header.rows * header.columns * header.samples_per_pixel
    rules.allow_values(values, shape if header.samples_per_pixel == 1 else (*shape, header.samples_per_pixel))
    rules.allow_bytes(4 * values * header.frames, (header.frames, *shape))


def read_text(dataset: Any, name: str) -> str:
    """Read an identifier.

    Args:
        dataset: the header.
        name: keyword of the element.

    Returns:
        Its text without the spaces and nulls that pad it; empty if it is absent.
    """
    with translate_errors(f"{name} of the DICOM header cannot be read"):
        return str(dataset.get(name) or "").strip(" \0\t\r\n")


def _patient_names(dataset: Any) -> tuple[str, ...]:
    """PatientName and PatientID as far as they can be read; they are only compared with other words."""
    found = []
    for tag in ("PatientName", "PatientID"):
        with contextlib.suppress(SampleError):
            found.append(read_text(dataset, tag))
    return tuple(filter(None, found))


def patient_name(dataset: Any) -> str:
    """PatientName without the delimiters that may end it, and without case."""
    return read_text(dataset, "PatientName").rstrip("^= ").casefold()


def patient_identity(dataset: Any) -> str:
    """What distinguishes patients: PatientID and its issuer, or without one, name and date of birth.

    A backslash separates values in DICOM and is in none, so no two patients share a text.
    """
    number, issuer = read_text(dataset, "PatientID"), read_text(dataset, "IssuerOfPatientID")
    if number:
        return f"{issuer}\\{number}" if issuer else number
    name, born = patient_name(dataset), read_text(dataset, "PatientBirthDate")
    return f"\\{name}\\{born}" if name or born else ""


def burned_in_annotation(dataset: Any) -> bool | None:
    """Whether the header says that text is burned into the pixels; None where it does not say."""
    return {"YES": True, "NO": False}.get(read_text(dataset, "BurnedInAnnotation").upper())


def combine_annotations(stated: Sequence[bool | None]) -> dict[str, object]:
    """What the catalog states for the files of one input: yes if any does, no if all do, otherwise nothing."""
    if any(stated):
        return {"burned_in_annotation": True}
    return {} if None in stated else {"burned_in_annotation": False}


def _read_numbers(dataset: Any, name: str, count: int) -> tuple[float, ...] | None:
    try:
        with translate_errors(name):
            value = dataset.get(name)
            numbers = tuple(float(v) for v in value) if value is not None else ()
    except SampleError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _decimals(dataset: Any, name: str, count: int) -> tuple[int, ...] | None:
    """Number of digits after the point of each number; None where the text is not known."""
    try:
        texts = [str(getattr(value, "original_string", value)) for value in dataset.get(name) or ()]
        exponents = [Decimal(text.strip(" \0")).as_tuple().exponent for text in texts]
    except (TypeError, ValueError, InvalidOperation):
        return None
    decimals = tuple(max(-exponent, 0) for exponent in exponents if isinstance(exponent, int))
    return decimals if len(decimals) == count else None


def _read_length(dataset: Any, *names: str) -> float | None:
    """The first of these that states a length, without its sign: MR and NM write SpacingBetweenSlices with one."""
    for name in names:
        try:
            length = abs(float(dataset.get(name) or 0))
        except (TypeError, ValueError):
            continue
        if 0 < length < np.inf:
            return length
    return None


def read_integer(dataset: Any, name: str, default: int | None = None) -> int:
    """Read a whole number of the header.

    Args:
        dataset: the header.
        name: keyword of the element.
        default: where the element is absent or empty; None if it must be there.

    Returns:
        The number.

    Raises:
        SampleError: rule ``damaged`` if it is not a whole number, or absent without a default.
    """
    with translate_errors(f"{name} of the DICOM header is not a whole number"):
        value = dataset.get(name)
        if value in (None, "") and default is None:
            raise SampleError("damaged", f"the DICOM header has no {name}")
        return int(value or default or 0)


def _photometric(dataset: Any) -> str:
    found = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    return found if found in {*GREY, *RGB, PALETTE} else UNKNOWN_TERM


def _shown_inverted(dataset: Any) -> bool:
    """Whether the lowest value is meant to be white.

    Either tag says so, and once: PS3.3 pairs MONOCHROME1 with INVERSE and MONOCHROME2 with IDENTITY (C.8.11.3), so the two
    together are one inversion, and files that state only one of them mean it.
    """
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    return _photometric(dataset) == "MONOCHROME1" or (_photometric(dataset) == "MONOCHROME2" and shape == "INVERSE")


def _read_size(dataset: Any, name: str, default: int | None = None) -> int:
    """A whole number of the header that is at least one.

    Raises:
        SampleError: rule ``damaged`` as :func:`read_integer`, rule ``dimensions`` below one.
    """
    size = read_integer(dataset, name, default)
    if size < 1:
        raise SampleError("dimensions", f"{name} of the DICOM header is {size}; an image has at least 1; correct the header")
    return size


def read_slice_header(dataset: Any, sop_class: str, *, float_pixels: bool = False) -> SliceHeader:
    """Read what one file states about its pixels and their position.

    Args:
        dataset: the header.
        sop_class: UID of its SOP class.
        float_pixels: whether its pixels are floating-point numbers.

    Returns:
        The slice's header, its numbers checked.

    Raises:
        SampleError: rule ``damaged`` or ``dimensions`` for sizes that are missing or impossible.
    """
    return SliceHeader(
        rows=_read_size(dataset, "Rows"),
        columns=_read_size(dataset, "Columns"),
        frames=_read_size(dataset, "NumberOfFrames", 1),
        samples_per_pixel=_read_size(dataset, "SamplesPerPixel", 1),
        photometric=_photometric(dataset),
        inverted=_shown_inverted(dataset),
        float_pixels=float_pixels,
        sop_class=known_uid(sop_class),
        segmentation=sop_class.strip(" \0") in SEGMENTATION_CLASSES or read_text(dataset, "Modality").upper() == "SEG",
        mosaic="MOSAIC" in [str(v) for v in dataset.get("ImageType") or ()],
        position_mm=_read_numbers(dataset, "ImagePositionPatient", 3),
        position_decimals=_decimals(dataset, "ImagePositionPatient", 3),
        orientation=_read_numbers(dataset, "ImageOrientationPatient", 6),
        spacing_mm=_read_numbers(dataset, "PixelSpacing", 2),
        thickness_mm=_read_length(dataset, "SpacingBetweenSlices", "SliceThickness"),
        localizer="LOCALIZER" in [str(v) for v in dataset.get("ImageType") or ()],
        tags=read_volume_tags(dataset),
    )
