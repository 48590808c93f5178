"""A small picture and the technical header fields of a file that is not used: read as far as they go, for people to look at."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from crossdim.pipelines.readers import raster
from crossdim.pipelines.readers.dicom_header import looks_like_dicom
from crossdim.pipelines.readers.dicom_preview import read_dicom
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.nifti_header import looks_like_nifti
from crossdim.pipelines.readers.nifti_preview import inflate_leniently, read_nifti
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array

#: Longest side of the picture, pixels.
PREVIEW_SIDE = 96
#: Pictures are thinned out to at most this side before their values are looked at, so that a large one takes no more memory.
_THINNED_SIDE = 4 * PREVIEW_SIDE
#: Percentiles that become black and white: a few outliers leave the rest visible.
_SHOWN = (1.0, 99.0)
#: Words that Pillow has for kinds of pixels.
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
#: Readers whose formats Pillow draws as far as a file goes.
_PILLOW = (raster.PNG, raster.JPEG, raster.BMP, raster.WEBP)
#: Enough for the header of NIfTI-2.
_HEAD_BYTES = 540
#: Place of the depth of a sample in a PNG.
_PNG_DEPTH = 24

Fields = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What can be seen of a file.

    Attributes:
        fields: technical header fields by name; numbers and words of closed lists alone.
        picture: (H, W) grey or (H, W, 3) RGB, uint8; None if no pixels can be read, or if they may show text on the patient.
    """

    fields: Fields
    picture: npt.NDArray[np.uint8] | None


def read_preview(data: bytes) -> Preview:
    """Read a picture and header fields of a file, whatever is wrong with it.

    Args:
        data: the file, or its beginning.

    Returns:
        What can be read; of formats without a lenient reader what their strict one decodes, of others nothing.
    """
    if any(READERS[name].matches(data, True) for name in _PILLOW):
        fields, picture = _read_raster(data)
    elif looks_like_dicom(data):
        fields, picture = read_dicom(data)
    elif looks_like_nifti(start := inflate_leniently(data, _HEAD_BYTES)):
        fields, picture = read_nifti(data, start)
    else:
        fields, picture = _read_with_reader(data)
    return Preview(fields=fields, picture=None if picture is None else shrink(picture))


def shrink(picture: Array) -> npt.NDArray[np.uint8]:
    """Stretch a picture of any range to 0..255 and reduce it to :data:`PREVIEW_SIDE`.

    Args:
        picture: (H, W), or (H, W, 3) of uint8, which is not stretched.
    """
    step = max(1, max(picture.shape[:2]) // _THINNED_SIDE)
    thin = picture[::step, ::step]
    if thin.ndim == 2 and thin.dtype != np.uint8:
        values = np.nan_to_num(thin.astype(np.float32))
        low, high = np.percentile(values, _SHOWN)
        thin = (np.clip((values - low) / (high - low if high > low else 1), 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(thin))
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BOX)
    return np.asarray(image)


def _read_raster(data: bytes) -> tuple[Fields, Array | None]:
    """Of a PNG, JPEG, BMP or WebP file; what a cut file does not hold is black."""
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # memory and time are limited by the decoder process
    fields: Fields = {}
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(name.upper() for name in _PILLOW))
        fields = {"size": f"{image.height} x {image.width}", "pixels": image.mode if image.mode in _MODES else "unknown"}
        if data.startswith(raster.PNG_MAGIC):
            fields["bits"] = str(data[_PNG_DEPTH])
        if image.mode == "F" or image.mode.startswith("I"):
            return fields, np.asarray(image)
        return fields, np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, SyntaxError, ValueError, IndexError):
        return fields, None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before, limit


def _read_with_reader(data: bytes) -> tuple[Fields, Array | None]:
    """Of a format whose reader takes a file alone: its header, and the image or the middle plane, if the file is sound."""
    fields: Fields = {}
    with contextlib.suppress(SampleError, EOFError):
        for reader in READERS.values():
            if reader.grouping == "file" and reader.matches(data, True):
                found = reader.read_header(data, ReadRules(), whole=True)
                if isinstance(found, HeaderInfo):
                    fields = {"size": " x ".join(map(str, found.shape))}
                    fields |= {"spacing, mm": ", ".join(f"{side:.4g}" for side in found.spacing_mm)} if found.spacing_mm else {}
                array = reader.decode(RawItem(uri="", files=(data,))).array
                if array.ndim == 4:
                    return fields, array[0, array.shape[1] // 2, ::-1]
                return fields, array.transpose(1, 2, 0) if len(array) == 3 else array[0]
    return fields, None
