"""Inputs that are refused or ignored, each for one reason that its header shows, with pixels that can be seen all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from tests.pipelines.corpora import blob, nifti_bytes, picture
from tests.pipelines.dicom_files import AXIAL, dicom_bytes

#: Where the slices of the uneven series lie, in mm: steps of 2 and 3, so that no run between gaps is kept.
UNEVEN_MM = (0, 2, 5, 7, 10, 12)


def _write(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_refusals(folder: Path) -> None:
    """Series that are uneven, coloured or of two sizes, a screenshot, NIfTI files, complex or cut, a picture and a text."""
    slices = blob((6, 40, 40), 8)
    for depth, (pixels, z_mm) in enumerate(zip(slices, UNEVEN_MM, strict=True)):
        tags = AXIAL | {"ImagePositionPatient": [0, 0, z_mm], "SeriesInstanceUID": "1.2.7"}
        _write(folder, f"uneven/{depth}.dcm", dicom_bytes(pixels, **tags))
        size = 40 if depth else 30
        tags = AXIAL | {"ImagePositionPatient": [0, 0, 2 * depth], "SeriesInstanceUID": "1.2.9"}
        _write(folder, f"sizes/{depth}.dcm", dicom_bytes(np.ascontiguousarray(pixels[:size, :size]), **tags))
    colour = np.stack([picture(1, 40, 40), picture(2, 40, 40), picture(3, 40, 40).T], axis=2)
    rgb = AXIAL | {"ImagePositionPatient": [0, 0, 0], "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    _write(folder, "colour/0.dcm", dicom_bytes(colour, **rgb, PlanarConfiguration=0, SeriesInstanceUID="1.2.8"))
    capture = {"SOPClassUID": SecondaryCaptureImageStorage, "SeriesInstanceUID": "1.2.10", "BurnedInAnnotation": "YES"}
    _write(folder, "capture/0.dcm", dicom_bytes(colour, **rgb, PlanarConfiguration=0, **capture))
    whole = nifti_bytes(blob((40, 36, 30), 9), (2.0, 2.0, 2.0))
    _write(folder, "cut.nii", whole[: len(whole) * 2 // 3])
    _write(folder, "complex.nii", nifti_bytes(blob((40, 36, 30), 7).astype(np.complex64), (2.0, 2.0, 2.0)))
    path = folder / "photograph.png"
    Image.fromarray(picture(4)).save(path)
    _write(folder, "notes.txt", b"nothing to see")
