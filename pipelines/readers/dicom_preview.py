"""A picture and the header fields of a DICOM file that is not used: numbers, and words of closed lists, never text."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels.utils import pixel_array

from crossdim.pipelines.readers.deflated import inflate_dataset
from crossdim.pipelines.readers.dicom_errors import translate_errors
from crossdim.pipelines.readers.dicom_header import FLOAT_TAGS, GREY, PALETTE, RGB, burned_in_annotation
from crossdim.pipelines.readers.dicom_terms import UNKNOWN_TERM, known_uid, uid_name
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array
from crossdim.storage_schema.vocabulary import MODALITY_WORDS

#: Elements of numbers that are shown. None of them is a date, an identifier or a measure of the patient's body.
NUMBERS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PlanarConfiguration", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    *("ImagePositionPatient", "ImageOrientationPatient", "GantryDetectorTilt", "RescaleSlope", "RescaleIntercept"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth"),
)
#: Elements of words, each with its closed list.
WORDS = {
    "PhotometricInterpretation": frozenset({*GREY, *RGB, PALETTE, "YBR_PARTIAL_420", "HSV", "CMYK", "ARGB", "XYB"}),
    "Modality": frozenset(word.upper() for word in MODALITY_WORDS) | {"SEG", "SR", "PR", "RTSTRUCT", "RTPLAN", "RTDOSE", "KO"},
    "ImageType": frozenset({"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "AXIAL", "LOCALIZER", "MOSAIC", "MPR"}),
    "PresentationLUTShape": frozenset({"IDENTITY", "INVERSE"}),
    "RescaleType": frozenset({"HU", "US", "OD"}),
    "BurnedInAnnotation": frozenset({"YES", "NO"}),
}
#: SOP classes of screenshots and scanned paper (Secondary Capture and its multi-frame forms), which often show a name.
_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
#: Stands beside the fields of a file whose picture is not made.
WITHHELD = {"picture": "not made, as text on the patient may be part of it"}
_MOST_VALUES = 6


def read_dicom(data: bytes) -> tuple[dict[str, str], Array | None]:
    """Read header fields and the middle frame of a DICOM file, as far as it is sound.

    Args:
        data: the file, or its beginning.

    Returns:
        The fields, and the picture, (H, W) or (H, W, 3); None if no pixels can be read, or if text may be burned into them:
        the header says so, or the file is a secondary capture.
    """
    try:
        with translate_errors("the DICOM file cannot be read"):
            dataset = pydicom.dcmread(io.BytesIO(inflate_dataset(data, whole=False)), force=True)
    except SampleError:
        return {}, None
    fields = _list_fields(dataset)
    return (fields | WITHHELD, None) if _may_show_text(dataset) else (fields, _read_picture(dataset))


@contextlib.contextmanager
def _ignore_errors() -> Iterator[None]:
    with contextlib.suppress(SampleError), translate_errors("a part of it"):
        yield


def _list_fields(dataset: Any) -> dict[str, str]:
    fields = {
        "SOPClassUID": _format_element(dataset, "SOPClassUID", _format_uid),
        "TransferSyntaxUID": _format_element(_file_meta(dataset), "TransferSyntaxUID", _format_uid),
    }
    for name, words in WORDS.items():
        if text := _format_element(dataset, name, _format_words, words):
            fields[name] = text
    for name in NUMBERS:
        if name in dataset:
            fields[name] = _format_element(dataset, name, _format_numbers) or "not a number"
    return fields


def _format_element(dataset: Any, name: str, form: Callable[..., str], *more: object) -> str:
    """The text of an element, or nothing if it is damaged."""
    with _ignore_errors():
        return form(dataset.get(name), *more)
    return ""


def _format_uid(value: Any) -> str:
    return uid_name(value) if value else "absent"


def _file_meta(dataset: Any) -> Any:
    return getattr(dataset, "file_meta", None) or {}


def _values(value: Any) -> list[Any]:
    if value in (None, ""):
        return []
    return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]


def _format_words(value: Any, words: frozenset[str]) -> str:
    found = [str(one).strip(" \0").upper() for one in _values(value)[:_MOST_VALUES]]
    return ", ".join(word if word in words else UNKNOWN_TERM for word in found)


def _format_numbers(value: Any) -> str:
    return ", ".join(f"{float(number):.6g}" for number in _values(value)[:_MOST_VALUES]) or "empty"


def _may_show_text(dataset: Any) -> bool:
    with _ignore_errors():
        sop_class = known_uid(dataset.get("SOPClassUID"))
        return bool(burned_in_annotation(dataset)) or sop_class == _CAPTURES or sop_class.startswith(f"{_CAPTURES}.")
    return True


def _read_picture(dataset: Any) -> Array | None:
    picture: Array | None = None
    with _ignore_errors():
        syntax = _file_meta(dataset).get("TransferSyntaxUID")
        is_packed = syntax is not None and syntax.is_encapsulated
        picture = _decode_frame(dataset) if is_packed else _read_native(dataset)
    if picture is None or min(picture.shape[:2]) < 1:
        return None
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip()
    return -picture.astype(np.float32) if photometric == "MONOCHROME1" and picture.ndim == 2 else picture


def _middle_frame(dataset: Any) -> int:
    return max(int(dataset.get("NumberOfFrames") or 1), 1) // 2


def _decode_frame(dataset: Any) -> Array:
    """The middle frame of compressed pixels, colour as RGB."""
    return _as_picture(pixel_array(dataset, index=_middle_frame(dataset)))


def _read_native(dataset: Any) -> Array | None:
    """The middle frame of uncompressed pixels, or the last that the file holds; rows that are missing are zero."""
    tag = next((tag for tag in (*FLOAT_TAGS, 0x7FE00010) if tag in dataset), None)
    if tag is None:
        return None
    rows, columns, samples = (int(dataset.get(name) or 1) for name in ("Rows", "Columns", "SamplesPerPixel"))
    bits = int(dataset.get("BitsAllocated") or 16)
    kind = "f" if tag in FLOAT_TAGS else "i" if int(dataset.get("PixelRepresentation") or 0) else "u"
    is_little = _file_meta(dataset).get("TransferSyntaxUID") != pydicom.uid.ExplicitVRBigEndian
    dtype = np.dtype(f"{'<' if is_little else '>'}{kind}{bits // 8}")
    data, frame_bytes = dataset[tag].value, rows * columns * samples * dtype.itemsize
    start = frame_bytes * min(_middle_frame(dataset), max(len(data) // frame_bytes - 1, 0))
    part = data[start : start + frame_bytes]
    frame = np.frombuffer(part + bytes(frame_bytes - len(part)), dtype)
    if int(dataset.get("PlanarConfiguration") or 0) == 1:
        frame_HWC = frame.reshape(samples, rows, columns).transpose(1, 2, 0)
    else:
        frame_HWC = frame.reshape(rows, columns, samples)
    is_luma = str(dataset.get("PhotometricInterpretation") or "").startswith("YBR")
    return _as_picture(frame_HWC[..., 0] if is_luma else frame_HWC)


def _as_picture(frame: Array) -> Array:
    """(H, W), or (H, W, 3) of three bytes; of other numbers of samples the first."""
    if frame.ndim == 2 or (frame.shape[2] == 3 and frame.dtype == np.uint8):
        return frame
    return frame[..., 0]
