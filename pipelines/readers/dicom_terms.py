"""DICOM's closed lists of words. Only these leave a header for a reason or a note: free text may name a patient."""

from __future__ import annotations

from collections.abc import Collection

from pydicom.uid import UID

#: Stands for a value that is in no list.
UNKNOWN_TERM = "unknown"
#: SOP classes of segmentations: Segmentation, Surface Segmentation, Label Map Segmentation and Height Map Segmentation Storage.
SEGMENTATION_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.66.{last}" for last in (4, 5, 7, 8))
#: Modality (0008,0060), PS3.3 C.7.3.1.1.1, with retired terms.
MODALITY_TERMS = frozenset(
    {
        "ANN", "AR", "ASMT", "AS", "AU", "BDUS", "BI", "BMD", "CD", "CFM", "CF", "CP", "CR", "CS", "CTPROTOCOL", "CT", "DD",
        "DF", "DG", "DMS", "DM", "DOC", "DS", "DX", "EC", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FA", "FID", "FS", "GM",
        "HC", "HD", "IO", "IOL", "IVOCT", "IVUS", "KER", "KO", "LEN", "LP", "LS", "M3D", "MA", "MG", "MR", "MS", "NM", "OAM",
        "OCT", "OP", "OPM", "OPR", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX", "REG",
        "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV",
        "SEG", "SM", "SMR", "SR", "SRF", "ST", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "VF", "XA", "XAPROTOCOL", "XC",
    }
)  # fmt: skip


def term(value: object, known: Collection[str]) -> str:
    """A header's word if it is one of the known, empty if there is none, else ``UNKNOWN_TERM``; never the text itself."""
    text = str(value or "").strip(" \0")
    return text if text in known or not text else UNKNOWN_TERM


def known_uid(value: object) -> str:
    """A UID that the standard defines, such as a SOP class; empty for any other text."""
    text = str(value or "").strip(" \0")
    return text if UID(text).name != text else ""  # pydicom names a UID that it does not know by itself


def uid_name(value: object) -> str:
    """The standard's name of a UID, such as a transfer syntax."""
    known = known_uid(value)
    return UID(known).name if known else "an unknown UID"
