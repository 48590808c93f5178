"""Small corpora written by the tests: every value is known, and so is everything that is wrong with them."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def picture(seed: int, height: int = 50, width: int = 62) -> np.ndarray:
    """Smooth structure and noise: (H, W) uint8."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width))
    return (noise + np.linspace(0, 190, width)).astype(np.uint8)


def write_images(folder: Path, count: int = 12) -> None:
    """PNG files in two class folders; one file is cut, one stands there twice, one is foreign."""
    for number in range(count):
        path = folder / ("sick" if number % 3 == 0 else "well") / f"p{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path)
    whole = (folder / "well" / "p001.png").read_bytes()
    (folder / "well" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "well" / "p999_again.png").write_bytes(whole)
    (folder / "notes.txt").write_text("nothing to see")


def blob(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """A bright ellipsoid in air: int16, like HU."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(g**2 for g in grid) < 0.8
    noise = np.random.default_rng(seed).integers(0, 80, shape)
    return np.where(inside, noise, -1000 + noise // 8).astype(np.int16)


def nifti_bytes(array_xyz: np.ndarray, spacing_mm: tuple[float, float, float]) -> bytes:
    image = nibabel.Nifti1Image(array_xyz, np.diag([*spacing_mm, 1.0]))
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())


def write_series(
    folder: Path, volume_DHW: np.ndarray, uid: str, *, spacing_mm: tuple[float, float, float] = (2.0, 1.5, 1.5)
) -> None:
    """A CT series whose names and InstanceNumbers say nothing about the order of its slices."""
    folder.mkdir(parents=True, exist_ok=True)
    for depth, pixels in enumerate(volume_DHW):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{uid}.{depth + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.Modality, ds.PatientID, ds.InstanceNumber = uid, "CT", "someone", 1
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.PixelSpacing = [spacing_mm[1], spacing_mm[2]]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-10, -20, 5 + spacing_mm[0] * depth]
        ds.RescaleSlope, ds.RescaleIntercept = 1, -24
        ds.PixelData = (pixels.astype(np.int16) + 24).tobytes()
        pydicom.dcmwrite(folder / f"{(depth * 7) % 31:02d}.dcm", ds, enforce_file_format=True)


def write_volumes(folder: Path) -> None:
    """CT and MR volumes as NIfTI and DICOM, one with a damaged checksum."""
    (folder / "ct").mkdir(parents=True)
    (folder / "mr").mkdir()
    (folder / "ct" / "a.nii.gz").write_bytes(gzip.compress(nifti_bytes(blob((40, 36, 30), 1), (1.5, 1.5, 2.0)), mtime=0))
    (folder / "ct" / "b.nii").write_bytes(nifti_bytes(blob((70, 20, 30), 2), (2.0, 2.0, 2.0)))
    (folder / "mr" / "c.nii").write_bytes(nifti_bytes(blob((30, 30, 30), 3) + 1000, (2.0, 2.0, 2.0)))
    damaged = bytearray(gzip.compress(nifti_bytes(blob((30, 30, 30), 4), (2.0, 2.0, 2.0)), mtime=0))
    damaged[-8] ^= 1
    (folder / "mr" / "bad_crc.nii.gz").write_bytes(bytes(damaged))
    write_series(folder / "ct" / "series", blob((24, 40, 36), 5), "1.2.3.4")
