"""DICOM's closed lists of words. Only these may be part of a reason or a note: free text may name a patient."""

from __future__ import annotations

from pydicom.uid import UID

#: Stands for a value that is in no list.
UNKNOWN_TERM = "unknown"
#: SOP classes of segmentations: Segmentation, Surface Segmentation, Label Map Segmentation and Height Map Segmentation Storage.
SEGMENTATION_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.66.{last}" for last in (4, 5, 7, 8))


def known_uid(value: object) -> str:
    """A UID that the standard defines, such as a SOP class; empty for any other text."""
    text = str(value or "").strip(" \0")
    return text if UID(text).name != text else ""  # pydicom names a UID that it does not know by itself


def uid_name(value: object) -> str:
    """The standard's name of a UID, such as a transfer syntax."""
    known = known_uid(value)
    return UID(known).name if known else "an unknown UID"
