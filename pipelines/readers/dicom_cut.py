"""DICOM files that were cut before their pixels, told apart from objects without any: reports, plans, presentation states."""

from __future__ import annotations

import io

from pydicom.uid import UID

from crossdim.pipelines.readers.dicom_terms import known_uid
from crossdim.storage_schema.errors import SampleError

#: Every SOP class of images has this in its keyword, but for these.
_IMAGE_WORD = "ImageStorage"
_MORE_IMAGES = frozenset(
    {
        "EnhancedUSVolumeStorage",
        "OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage",
        "OphthalmicThicknessMapStorage",
        "CornealTopographyMapStorage",
        "ParametricMapStorage",
        "SegmentationStorage",
        "LabelMapSegmentationStorage",
        "HeightMapSegmentationStorage",
    }
)
#: The tag of an element with its length: where a file may end.
_ELEMENT_BYTES = 8


class HeaderStream(io.BytesIO):
    """A file that remembers whether more of an element was requested than there is; pydicom takes what is left."""

    ends_inside_element = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as from any file."""
        data = super().read(size)
        if size is not None and len(data) < size and (data or size != _ELEMENT_BYTES):
            self.ends_inside_element = True
        return data


def truncated_error() -> SampleError:
    """The refusal of a file that ends inside an element."""
    return SampleError("truncated", "the DICOM file ends inside an element before its pixels; the file is cut")


def check_no_image(sop_class: str, *, ends_inside_element: bool) -> None:
    """Refuse a file without pixels that is, or may be, an image that was cut.

    Args:
        sop_class: its SOPClassUID, or what the file meta information says; empty if neither is there.
        ends_inside_element: whether its last element goes on behind the end of the file.

    Raises:
        SampleError: rule ``truncated`` or ``no_pixels``.
    """
    known = known_uid(sop_class)
    keyword = UID(known).keyword if known else ""
    is_image = _IMAGE_WORD in keyword or keyword in _MORE_IMAGES
    if known and not is_image:
        return
    if ends_inside_element:
        raise truncated_error()
    if is_image:
        raise SampleError("no_pixels", "the SOP class is one of images, but the DICOM file has no PixelData; the file may be cut")
    if not sop_class:
        raise SampleError("no_pixels", "the DICOM file has neither a SOP class nor PixelData; the file may be cut")
