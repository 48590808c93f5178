"""Single DICOM files written by the tests, with any tag as they want it."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality

DEFAULT_RULES = ReadRules()
#: An axial slice of 2 x 2 x 2 mm.
AXIAL = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2, 2], "SliceThickness": 2}


def dicom_dataset(pixels: np.ndarray, **tags: object) -> FileDataset:
    """A grey CT image with these pixels; ``tags`` are DICOM keywords, None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, "1.2.3", "CT"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.tobytes()
    dataset.add_new(0x7FE00010, "OB" if pixels.dtype.itemsize == 1 else "OW", data + b"\0" * (len(data) % 2))
    for keyword, value in tags.items():
        if value is None:
            dataset.pop(keyword, None)
        elif isinstance(value, tuple):  # (value representation, value), where the representation is part of the test
            dataset.add_new(keyword, *value)
        else:
            setattr(dataset, keyword, value)
    return dataset


def dicom_bytes(pixels: np.ndarray, **tags: object) -> bytes:
    buffer = io.BytesIO()
    with pydicom.config.disable_value_validation():  # values that break the standard are part of the tests
        pydicom.dcmwrite(buffer, dicom_dataset(pixels, **tags), enforce_file_format=True)
    return buffer.getvalue()


def lut_item(first: int, entries: np.ndarray, kind: str = "US") -> Dataset:
    """An item of a ModalityLUTSequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, 8 * entries.dtype.itemsize])
    item.ModalityLUTType = kind
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


def series_bytes(volume_DHW: np.ndarray, **tags: object) -> tuple[bytes, ...]:
    """Axial slices 2 mm apart, without rescale unless asked for."""
    return tuple(
        dicom_bytes(pixels, **{**AXIAL, "ImagePositionPatient": [0, 0, 2 * depth], **tags})
        for depth, pixels in enumerate(volume_DHW)
    )


def read_image(data: bytes, modality: Modality = Modality.OT) -> Sample:
    return READERS["dicom"].decode(RawItem(uri="x", files=(data,), modality=modality))


def read_series(files: tuple[bytes, ...], modality: Modality = Modality.OT, rules: ReadRules = DEFAULT_RULES) -> Sample:
    return READERS["dicom-series"].decode(RawItem(uri="s", files=files, modality=modality, rules=rules))
