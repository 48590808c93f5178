"""DICOM files: headers for the scan, and the pixels of one file."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut
from pydicom.tag import BaseTag

from pipelines.decoders.facts import Facts, Format, SliceHeader
from pipelines.decoders.raw import ReadRules, patient_hash
from pipelines.reasons import foreign_text
from storage_schema.errors import SampleError
from storage_schema.vocabulary import MODALITY_WORDS, Modality

DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
#: PixelData, FloatPixelData and DoubleFloatPixelData.
_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are a DICOM file, with its preamble or, as old archives have them, without."""
    if head[128:132] == b"DICM":
        return True
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    spelled = head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"SH", b"LO", b"DA")
    return len(head) > 16 and group in (2, 8) and element <= 0x18 and (spelled or int.from_bytes(head[4:8], "little") <= 64)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Errors of pydicom in words of ours; its warnings on odd headers are not for the user of ten thousand files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except SampleError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except InvalidDicomError as error:
        raise SampleError("not_dicom", f"{what}: {foreign_text(error)}") from error
    except Exception as error:  # codecs and parsers raise what they like; pydicom promises no error type
        raise SampleError("damaged", f"{what}: {type(error).__name__}: {foreign_text(error)}") from error


def _header(data: bytes) -> tuple[Any, bool]:
    """Everything before the pixels, and whether pixels follow."""
    seen: list[BaseTag] = []

    def at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        if tag in _PIXEL_TAGS:
            seen.append(tag)
        return bool(seen)

    dataset = read_partial(io.BytesIO(data), stop_when=at_pixels, force=True)
    return dataset, bool(seen)


def facts(data: bytes, rules: ReadRules, *, whole: bool = True) -> Facts | None:
    """What the header of a DICOM file says; None for a file that is no picture and claims none, such as a DICOMDIR.

    Args:
        data: the file, or its beginning.
        rules: the size guard.
        whole: whether ``data`` is all of it.

    Raises:
        SampleError: if the header cannot be read, or promises pixels that are missing.
        EOFError: if ``data`` is a beginning that ends before the pixels do begin.
    """
    try:
        with _reading("the DICOM header cannot be read"):
            dataset, has_pixels = _header(data)
    except SampleError as error:
        if whole:
            raise
        raise EOFError("more bytes are needed") from error
    if not (has_pixels or whole):
        raise EOFError("more bytes are needed")
    with _reading("the DICOM header cannot be read"):
        return _facts_of(dataset, has_pixels, rules)


def _facts_of(dataset: Any, has_pixels: bool, rules: ReadRules) -> Facts | None:
    sop_class = str(dataset.get("SOPClassUID") or getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID") or "")
    if sop_class == DIRECTORY_CLASS or ("Rows" not in dataset and not has_pixels):
        return None
    if not has_pixels:
        raise SampleError("no_pixels", "the DICOM header describes a picture, but the file has no PixelData")
    header = slice_header(dataset, sop_class)
    shape = (header.rows, header.columns)
    rules.allow_bytes(header.rows * header.columns * header.frames * header.samples_per_pixel * 4, (header.frames, *shape))
    patient = str(dataset.get("PatientID") or "").strip()
    return Facts(
        format=Format.DICOM,
        shape=shape,
        spacing_mm=header.spacing_mm,
        modality=str(dataset.get("Modality") or "") or None,
        patient=patient_hash(patient) if patient else None,
        series=str(dataset.get("SeriesInstanceUID") or ""),
        slice=header,
    )


def _numbers(dataset: Any, name: str, count: int) -> tuple[float, ...] | None:
    value = dataset.get(name)
    try:
        numbers = tuple(float(v) for v in value) if value is not None else ()
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _number(dataset: Any, name: str) -> float | None:
    value = dataset.get(name)
    return None if value in (None, "") else float(value)


def slice_header(dataset: Any, sop_class: str) -> SliceHeader:
    """The geometry that one file states."""
    return SliceHeader(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples_per_pixel=int(dataset.get("SamplesPerPixel") or 1),
        photometric=str(dataset.get("PhotometricInterpretation") or ""),
        sop_class=sop_class,
        mosaic="MOSAIC" in [str(v) for v in dataset.get("ImageType") or ()],
        position_mm=_numbers(dataset, "ImagePositionPatient", 3),
        orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        spacing_mm=_numbers(dataset, "PixelSpacing", 2),
        thickness_mm=_number(dataset, "SpacingBetweenSlices") or _number(dataset, "SliceThickness"),
    )


def check_single(header: SliceHeader) -> None:
    """Refuse what is more, or other, than one gray picture.

    Raises:
        SampleError: rule ``segmentation``, ``multi_frame``, ``mosaic`` or ``colour``.
    """
    if header.sop_class == SEGMENTATION_CLASS:
        raise SampleError("segmentation", "a DICOM segmentation is a label, not a picture")
    if header.frames > 1:
        raise SampleError(
            "multi_frame", f"{header.frames} frames in one file; enhanced multi-frame DICOM is not read yet, convert it to NIfTI"
        )
    if header.mosaic:
        raise SampleError("mosaic", "a Siemens mosaic holds many slices in one picture; convert it to NIfTI")
    if header.samples_per_pixel != 1 or not header.photometric.startswith("MONOCHROME"):
        raise SampleError("colour", f"{header.photometric} pictures are not read from DICOM; MONOCHROME1 and MONOCHROME2 are")


def read_pixels(data: bytes, rules: ReadRules) -> tuple[Any, SliceHeader, npt.NDArray[np.generic]]:
    """Header and stored pixels of one file that holds one gray picture.

    Returns:
        The dataset, its geometry, and (H, W) as stored.

    Raises:
        SampleError: for a file that is damaged, short, of another kind, or whose codec is not installed.
    """
    with _reading("the DICOM file cannot be read"):
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        if "PixelData" not in dataset or "Rows" not in dataset:
            raise SampleError("no_pixels", "the DICOM file has no PixelData")
        header = slice_header(dataset, str(dataset.get("SOPClassUID") or ""))
        check_single(header)
        rules.allow_bytes(header.rows * header.columns * 4, (header.rows, header.columns))
        _check_length(dataset, header)
        _check_codec(dataset)
    with _reading("the pixels cannot be decoded"):
        pixels = dataset.pixel_array
    if pixels.shape != (header.rows, header.columns):
        raise SampleError("pixel_shape", f"pixels decode to {pixels.shape}; the header says {(header.rows, header.columns)}")
    return dataset, header, pixels


def _check_length(dataset: Any, header: SliceHeader) -> None:
    if "TransferSyntaxUID" not in dataset.file_meta:  # archives without file meta are written in DICOM's default syntax
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    wanted = header.rows * header.columns * int(dataset.BitsAllocated) // 8
    if len(dataset.PixelData) < wanted:
        raise SampleError(
            "truncated", f"PixelData has {len(dataset.PixelData):,} bytes; {header.rows}x{header.columns} pixels need {wanted:,}"
        )


def _check_codec(dataset: Any) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not get_decoder(syntax).is_available:
        raise SampleError("codec", f"no codec for {syntax.name} is installed; pip install 'crossdim[dicom]'")


def physical(dataset: Any, pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Stored pixels in physical units (HU for CT), by this very file's rescale slope and intercept."""
    with _reading("the modality rescale cannot be applied"):
        return np.asarray(apply_modality_lut(pixels, dataset)).astype(np.float32)


def modality_of(dataset: Any, fallback: Modality) -> Modality:
    """Our word for the header's modality."""
    return MODALITY_WORDS.get(str(dataset.get("Modality") or "").lower(), fallback)
