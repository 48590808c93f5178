"""Closed word lists of the format, which every package uses."""

from __future__ import annotations

from enum import StrEnum

FORMAT_NAME = "crossdim.dataset"
#: The version that is written. Older ones are read as well, see ``READABLE_VERSIONS``.
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)


class Presentation(StrEnum):
    """The form in which a sample is stored."""

    IMAGE = "image"  # (C, H, W)
    PSEUDO3D = "pseudo3d"  # (C, D, H, W), an unrolled image: depth is not millimetres
    SUPERPATCH = "superpatch"  # (1, S, S, S), one box of a volume's grid

    @property
    def is_2d(self) -> bool:
        """Whether the sample was a 2D image."""
        return self is not Presentation.SUPERPATCH


class Modality(StrEnum):
    """How an image was made: DICOM's defined terms, reduced to those that are handled differently."""

    CT = "CT"
    MR = "MR"
    XR = "XR"  # projection radiography: DICOM's CR, DX, MG, RF, XA
    US = "US"
    NM = "NM"
    PT = "PT"
    SM = "SM"  # slide microscopy
    OT = "OT"


#: DICOM modality terms, and the folder names people use, that mean one of ours.
MODALITY_WORDS = {
    **{m.value.lower(): m for m in Modality},
    **dict.fromkeys(("cr", "dx", "mg", "rf", "xa", "rg", "xray", "xray2d", "radiograph"), Modality.XR),
    **dict.fromkeys(("mri", "t1", "t2", "flair"), Modality.MR),
    **dict.fromkeys(("pet",), Modality.PT),
    **dict.fromkeys(("gm", "micro", "micro2d", "microscopy", "histology"), Modality.SM),
}


class Encoding(StrEnum):
    """How the bytes of one sample are to be decoded."""

    NPY = "npy"  # a .npy file, never with objects
    ZARR_CHUNK = "zarr-chunk"  # one inner chunk of the superpatch bank: blosc(zstd, bitshuffle), then crc32c


class Split(StrEnum):
    """The part of a dataset that a sample belongs to; drawn by patient or by input file, never by sample."""

    TRAIN = "train"
    TEST = "test"


#: Suffixes of WebDataset members. A key holds no dot: readers split at the first one.
ARRAY_SUFFIX = "npy"
RECORD_SUFFIX = "json"

#: Member and file names that could run code when opened; refused on write and on read.
REFUSED_SUFFIXES = frozenset({"pkl", "pickle", "pth", "pt", "pyd", "npz", "joblib", "dill"})
