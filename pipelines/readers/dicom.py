"""The pixels of one DICOM file."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pydicom
from pydicom.pixels.decoders.base import get_decoder

from crossdim.pipelines.readers.code_stream import JPEG_2000, FrameHeader, check_code_streams, smallest_excess
from crossdim.pipelines.readers.deflated import inflate_dataset
from crossdim.pipelines.readers.dicom_errors import translate_errors
from crossdim.pipelines.readers.dicom_frames import flatten_frames, has_frame_groups
from crossdim.pipelines.readers.dicom_header import (
    FLOAT_TAGS,
    PALETTE,
    RGB,
    allow_image,
    read_integer,
    read_modality,
    read_slice_header,
)
from crossdim.pipelines.readers.dicom_mosaic import cut_tiles, read_mosaic
from crossdim.pipelines.readers.dicom_terms import UNKNOWN_TERM, uid_name
from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.raw import ReadRules, check_expansion
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array
from crossdim.storage_schema.vocabulary import Modality

TRAILING_NOTE = "zeros behind the pixels left out"
AS_SIGNED_NOTE = "unsigned JPEG 2000 samples of a signed image, read as its bits"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredPixels:
    """The picture of one file.

    Attributes:
        dataset: of the file.
        header: of the picture.
        pixels: (H, W) as stored; (H, W, 3) for colour, as RGB.
        notes: what was decided on the way.
    """

    dataset: Any
    header: SliceHeader
    pixels: Array
    notes: tuple[str | None, ...]


def check_single(header: SliceHeader, *, colour: bool = False) -> None:
    """Refuse a file that holds more, or other, than one image.

    Args:
        header: of the file.
        colour: whether colour is read too: in images, not in volumes.

    Raises:
        SampleError: rule ``segmentation``, ``multi_frame``, ``mosaic``, ``float_pixels``, ``palette_colour``, ``colour`` or
            ``photometric``.
    """
    if header.segmentation:
        raise SampleError("segmentation", "a DICOM segmentation is a label, not a picture")
    if header.frames > 1:
        fault = header.frames_fault or "not read here: volumes of enhanced multi-frame DICOM are, convert others to NIfTI"
        raise SampleError("multi_frame", f"{header.frames} frames in one file: {fault}")
    if header.mosaic:
        raise SampleError("mosaic", header.frames_fault or "a Siemens mosaic holds the slices of a volume; it is no image")
    if header.float_pixels:
        raise SampleError("float_pixels", "FloatPixelData is not read; integer PixelData is, or convert the file to NIfTI")
    _check_photometric(header, colour)


def _check_photometric(header: SliceHeader, colour: bool) -> None:
    kind, samples = header.photometric, header.samples_per_pixel
    if kind == UNKNOWN_TERM or samples != (3 if kind in RGB else 1):
        raise SampleError(
            "photometric", f"{samples} samples a pixel and PhotometricInterpretation {kind} make no picture that is read"
        )
    if kind == PALETTE and not colour:
        raise SampleError("palette_colour", "a volume is made of grey slices; these are numbers of colours in a palette")
    if kind in RGB and not colour:
        raise SampleError("colour", f"{kind} slices make no volume; MONOCHROME1 and MONOCHROME2 do")


def read_pixels(data: bytes, rules: ReadRules, *, colour: bool = False) -> StoredPixels:
    """Read header and stored pixels of a file that holds one image.

    Args:
        data: the file.
        rules: the size guard.
        colour: whether colour is read too.

    Returns:
        The pixels, with the dataset and its header.

    Raises:
        SampleError: for a file that is damaged, of another kind, or whose codec is not installed, and for pixels that are fewer
            or more, or of another sign, than the header says.
    """
    with translate_errors("the DICOM file cannot be read"):
        dataset, header = _parse(data)
        check_single(header, colour=colour)
        pixels, notes = _decode(dataset, header, data, rules)
    return StoredPixels(dataset=dataset, header=header, pixels=pixels, notes=notes)


def read_frames(data: bytes, rules: ReadRules) -> list[StoredPixels]:
    """Read headers and stored pixels of the frames of a file with functional groups, or of the tiles of a mosaic.

    Args:
        data: the file.
        rules: the size guard.

    Returns:
        The frames, in their order.

    Raises:
        SampleError: as :func:`read_pixels`.
    """
    with translate_errors("the DICOM file cannot be read"):
        dataset, header = _parse(data)
        check_single(replace(header, frames=1, mosaic=False))
        if header.mosaic and header.frames == 1:
            return _read_tiles(dataset, header, data, rules)
        if not has_frame_groups(dataset):
            raise SampleError("multi_frame", f"{header.frames} frames in one file, and nothing says where each of them lies")
        frames = flatten_frames(dataset, header.frames)
        headers = [read_slice_header(frame, header.sop_class) for frame in frames]
        pixels, notes = _decode(dataset, header, data, rules)
    return [
        StoredPixels(dataset=frame, header=one, pixels=plane, notes=notes)
        for frame, one, plane in zip(frames, headers, pixels.reshape(header.frames, header.rows, header.columns), strict=True)
    ]


def _read_tiles(dataset: Any, header: SliceHeader, data: bytes, rules: ReadRules) -> list[StoredPixels]:
    mosaic = read_mosaic(dataset, header)
    pixels, notes = _decode(dataset, header, data, rules)
    return [
        StoredPixels(dataset=dataset, header=one, pixels=tile, notes=notes)
        for one, tile in zip(mosaic.slices, cut_tiles(pixels, mosaic), strict=True)
    ]


def _parse(data: bytes) -> tuple[Any, SliceHeader]:
    dataset = pydicom.dcmread(io.BytesIO(inflate_dataset(data, whole=True)), force=True)
    float_pixels = any(tag in dataset for tag in FLOAT_TAGS)
    if "Rows" not in dataset or not (float_pixels or "PixelData" in dataset):
        raise SampleError("no_pixels", "the DICOM file has no PixelData")
    return dataset, read_slice_header(dataset, str(dataset.get("SOPClassUID") or ""), float_pixels=float_pixels)


def _decode(dataset: Any, header: SliceHeader, data: bytes, rules: ReadRules) -> tuple[Array, tuple[str | None, ...]]:
    """Stored pixels of all frames, and what was decided on the way, after everything that can be checked before a codec runs."""
    allow_image(header, rules)
    check_expansion(header.frames * header.rows * header.columns * header.samples_per_pixel, len(data))
    padded = _check_length(dataset, header)
    _check_codec(dataset)
    _check_bits(dataset)
    streams = _check_streams(dataset, header)
    with translate_errors("the pixels cannot be decoded"):
        pixels = dataset.pixel_array
    shape = ((header.frames,) if header.frames > 1 else ()) + (header.rows, header.columns)
    shape += (3,) if header.samples_per_pixel == 3 else ()
    if pixels.shape != shape:
        raise SampleError("pixel_shape", f"pixels decode to {pixels.shape}; the header says {shape}")
    planes = pixels if header.frames > 1 else pixels[None]
    signs = [_check_sign(dataset, stream, plane) for stream, plane in zip(streams, planes, strict=False)]
    return pixels, (padded, next(filter(None, signs), None))


def _check_length(dataset: Any, header: SliceHeader) -> str | None:
    """Hold the length of uncompressed pixels against the header; a note where zeros follow them."""
    if "TransferSyntaxUID" not in dataset.file_meta:  # archives without file meta are written in DICOM's default syntax
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return None
    samples = 2 if header.photometric == "YBR_FULL_422" else header.samples_per_pixel
    bits = samples * read_integer(dataset, "BitsAllocated")
    wanted, held = -(-header.frames * header.rows * header.columns * bits // 8), len(dataset.PixelData)
    frames = f" in {header.frames} frames" if header.frames > 1 else ""
    sizes = f"PixelData has {held:,} bytes; {header.rows}x{header.columns} pixels{frames} need {wanted:,}"
    if held < wanted:
        raise SampleError("truncated", sizes)
    if held <= wanted + wanted % 2:
        return None
    if 8 * (held - wanted) >= smallest_excess(header.rows, header.columns) * bits or any(dataset.PixelData[wanted:]):
        raise SampleError("pixel_length", f"{sizes}: the header does not describe them; export the file again")
    return TRAILING_NOTE


def _check_sign(dataset: Any, stream: FrameHeader, pixels: Array) -> str | None:
    """Hold the sign that JPEG 2000 states against PixelRepresentation, where it would make another value.

    Writers leave the sign out: unsigned samples of a signed image are its bits (pydicom's issue 1149, a file of a CT).
    """
    if dataset.file_meta.TransferSyntaxUID not in JPEG_2000 or stream.signed == (
        read_integer(dataset, "PixelRepresentation") == 1
    ):
        return None
    upper_half = 1 << (stream.bits - 1)
    if not stream.signed:
        return AS_SIGNED_NOTE if (pixels < 0).any() else None
    if (pixels >= upper_half).any():
        raise SampleError(
            "code_stream",
            "the compressed image holds negative values; PixelRepresentation says that there are none; correct the header",
        )
    return None


def _check_codec(dataset: Any) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not get_decoder(syntax).is_available:
        raise SampleError("codec", f"no codec for {uid_name(syntax)} is installed; pip install 'crossdim[dicom]'")


def _check_bits(dataset: Any) -> None:
    """Refuse pixels that do not sit at the low end of their cells; a codec's output always does."""
    high, stored = dataset.get("HighBit"), read_integer(dataset, "BitsStored")
    if high is not None and int(high) != stored - 1 and not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        raise SampleError("high_bit", f"HighBit is {int(high)} and BitsStored {stored}; DICOM asks for HighBit = BitsStored - 1")


def _check_streams(dataset: Any, header: SliceHeader) -> list[FrameHeader]:
    """What the code stream of each frame states; none for pixels that are not compressed."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return []
    promised = FrameHeader(
        rows=header.rows, columns=header.columns, samples=header.samples_per_pixel, bits=int(dataset.BitsAllocated)
    )
    return check_code_streams(dataset.PixelData, syntax, promised, header.frames)


def common_modality(stated: Sequence[Modality | None]) -> Modality | None:
    """The one modality that the slices of a series state; None if none does.

    Args:
        stated: by each slice, or None.

    Raises:
        SampleError: rule ``mixed_modality`` if they state several, with the slices that differ from most.
    """
    counts = Counter(one for one in stated if one is not None)
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        odd = tuple(number for number, one in enumerate(stated) if one not in (usual, None))
        listed = ", ".join(f"{one} ({number})" for one, number in sorted(counts.items()))
        raise SampleError("mixed_modality", f"slices of one series differ in Modality: {listed}; correct their headers", odd)
    return next(iter(counts), None)


def find_modality(dataset: Any, fallback: Modality) -> Modality:
    """Find the modality that a header states.

    Args:
        dataset: the header.
        fallback: what command line or folder say.

    Returns:
        The header's modality; ``fallback`` where it states none.
    """
    return read_modality(dataset) or fallback
