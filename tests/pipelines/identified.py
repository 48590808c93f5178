"""A DICOM tree in which every identifying place holds a planted text, and a search for those texts in published bytes."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.pipelines.corpora import blob, nifti_bytes, picture

#: Seven digits, as hospitals number their patients: all of them are tried in seconds.
PATIENT_ID = "4711193"
OTHER_PATIENT_ID = "4711194"
#: Standard tags that identify, by keyword.
PLANTED_TAGS = {
    "PatientName": "PLANTNAME^JANE",
    "PatientID": PATIENT_ID,
    "OtherPatientIDs": "PLANTOTHER77",
    "PatientBirthDate": "19530817",
    "PatientAddress": "PLANTADDRESS 5",
    "PatientComments": "PLANTCOMMENT",
    "InstitutionName": "PLANTHOSPITAL",
    "ReferringPhysicianName": "PLANTREFERRER^BOB",
    "OperatorsName": "PLANTOPERATOR^EVE",
    "AccessionNumber": "PLANTACC81",
    "StudyDate": "20230914",
    "SeriesDate": "20230915",
    "StudyDescription": "PLANTSTUDY",
    "SeriesDescription": "PLANTSERIES",
    "ProtocolName": "PLANTPROTOCOL",
    "StationName": "PLANTSTATION",
    "DeviceSerialNumber": "PLANTSERIAL9",
    "StudyID": "PLANTSTUDYID",
    "StudyInstanceUID": "1.2.826.0.1.7711.1",
    "SeriesInstanceUID": "1.2.826.0.1.7711.2",
    "FrameOfReferenceUID": "1.2.826.0.1.7711.3",
}
_PRIVATE = "PLANTPRIVATE"
_NESTED = "PLANTNESTED"
#: Tags of numbers and closed words, each of which holds a text in one series.
BROKEN_TAGS = (
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "NumberOfFrames",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "WindowCenter", "WindowWidth", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PhotometricInterpretation", "PresentationLUTShape", "Modality", "ImageType", "SOPClassUID", "BurnedInAnnotation",
    "PlanarConfiguration", "PixelAspectRatio", "InstanceNumber", "SliceLocation",
)  # fmt: skip


def _broken_text(keyword: str) -> str:
    return f"PLANT{keyword[:10].upper()}"


def needles() -> list[str]:
    """Every planted text."""
    names = ["PLANTFOLDER", "PLANTFILE", "PLANTREPORT", "PLANTEXT", "PLANTDESCRIP", "PLANTTEXTCHUNK", "PLANTMAGIC"]
    others = [OTHER_PATIENT_ID, _PRIVATE, _NESTED, "PLANTSYNTAX", "PLANTCHARS"]
    return [*PLANTED_TAGS.values(), *others, *names, *map(_broken_text, BROKEN_TAGS)]


def slice_of(pixels: np.ndarray, depth: int, **changed: object) -> FileDataset:
    """One sound CT slice full of planted texts; ``changed`` replaces tags, None removes them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.7711.9.{depth + 1}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"PLANTMAGIC".ljust(128, b"\0"))
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "CT"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelSpacing, ds.ImageOrientationPatient = [2, 2], [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-10, -20, 5 + 2 * depth]
    ds.RescaleSlope, ds.RescaleIntercept = 1, -24
    ds.PixelData = (pixels.astype(np.int16) + 24).tobytes()
    for keyword, value in {**PLANTED_TAGS, **changed}.items():
        if value is None:
            ds.pop(pydicom.tag.Tag(keyword), None)
        else:
            setattr(ds, keyword, value)
    nested = Dataset()
    nested.PatientID, nested.PatientName = _NESTED, _NESTED
    ds.OtherPatientIDsSequence = [nested]
    ds.private_block(0x0041, "PLANTPRIVATE", create=True).add_new(0x01, "LO", _PRIVATE)
    return ds


def _save(ds: FileDataset, path: Path, *, implicit: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if implicit:
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    path.write_bytes(buffer.getvalue())


def _write_broken(folder: Path, volume_DHW: np.ndarray) -> None:
    for number, keyword in enumerate(BROKEN_TAGS):
        for implicit in (False, True):
            for depth, pixels in enumerate(volume_DHW[:3] + number):
                ds = slice_of(pixels, depth, SeriesInstanceUID=f"1.2.826.0.1.7711.5{int(implicit)}{number}")
                tag = pydicom.tag.Tag(keyword)
                ds.pop(tag, None)
                ds.add_new(tag, "LO", _broken_text(keyword))
                name = f"{keyword}_{'implicit' if implicit else 'explicit'}_{depth}.dcm"
                _save(ds, folder / "PLANTFOLDER_broken" / name, implicit=implicit)
    for number, (sound, broken) in enumerate(
        ((str(ExplicitVRLittleEndian).encode(), b"PLANTSYNTAX".ljust(19, b"7")), (b"ISO_IR 100", b"PLANTCHARS"))
    ):
        ds = slice_of(volume_DHW[0], 0, SeriesInstanceUID=f"1.2.826.0.1.7711.6{number}", SpecificCharacterSet="ISO_IR 100")
        path = folder / f"replaced_{number}.dcm"
        _save(ds, path)
        path.write_bytes(path.read_bytes().replace(sound, broken, 1))


def _write_others(folder: Path) -> None:
    """Files of other formats, sound and broken, one file twice, litter, and a link that leads nowhere."""
    (folder / "PLANTFILE_again.dcm").write_bytes((folder / f"PLANTFOLDER_{PATIENT_ID}" / "PLANTFILE_0.dcm").read_bytes())
    (folder / "PLANTFILE_link.dcm").symlink_to("PLANTFILE_nowhere.dcm")
    (folder / "._PLANTFILE_0.dcm").write_bytes(b"\0\5\x16\7PLANTMAGIC")
    (folder / "PLANTREPORT.nrrd").write_bytes(b"NRRD0005\n# PLANTNAME^JANE\n")
    (folder / "PLANTFILE_empty.dcm").write_bytes(b"")
    (folder / "PLANTREPORT_JANE.txt").write_text("PLANTNAME^JANE was here")
    (folder / "scan.PLANTEXT").write_bytes(b"PLANTMAGIC " * 20)
    (folder / "PLANTFILE_text.dcm").write_text("PLANTNAME^JANE, born 19530817, " * 20)
    (folder / "PLANTFILE_text.png").write_text("PLANTNAME^JANE, born 19530817, " * 20)
    (folder / "PLANTFILE_text.nii").write_text("PLANTNAME^JANE, born 19530817, " * 20)
    header = bytearray(nifti_bytes(blob((20, 20, 20), 7), (2, 2, 2)))
    header[148:160] = b"PLANTDESCRIP"
    (folder / "PLANTFILE_sound.nii").write_bytes(bytes(header))
    labels = np.zeros((20, 20, 20), np.int16)
    labels[5:9, 5:9] = 1
    (folder / "PLANTFILE_sound_seg.nii").write_bytes(nifti_bytes(labels, (2, 2, 2)))
    header[344:348] = b"PLAN"
    (folder / "PLANTFILE_magic.nii").write_bytes(bytes(header))
    buffer = io.BytesIO()
    Image.fromarray(picture(3)).save(buffer, "PNG")
    text = b"tEXtAuthor\0PLANTTEXTCHUNK"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    sound = buffer.getvalue()[:33] + chunk + buffer.getvalue()[33:]
    (folder / "PLANTFILE_sound.png").write_bytes(sound)
    (folder / "PLANTFILE_cut.png").write_bytes(sound.replace(b"IDAT", b"PLAN", 1))


def write_identified(folder: Path) -> None:
    """The tree: two patients, broken tags, other formats; names of folders and files are planted too."""
    first, second = blob((12, 20, 20), 1), blob((12, 20, 20), 2)
    for depth in range(12):
        _save(slice_of(first[depth], depth), folder / f"PLANTFOLDER_{PATIENT_ID}" / f"PLANTFILE_{depth}.dcm")
        other = slice_of(second[depth], depth, PatientID=OTHER_PATIENT_ID, BurnedInAnnotation="YES")
        _save(other, folder / f"PLANTFOLDER_{OTHER_PATIENT_ID}" / f"PLANTFILE_{depth}.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of texts that are in the wrong place, as they are meant to be
        _write_broken(folder, first)
    _write_others(folder)


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what they hold once unpacked."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield json.dumps(table.to_pylist()).encode()
        yield repr(table.schema.metadata).encode()
    if path.suffix == ".tar":
        with tarfile.open(path) as tar:
            for member in tar:
                yield member.name.encode()
                yield tar.extractfile(member).read()


def forms(text: str) -> Iterator[bytes]:
    """A text in every encoding, and its hashes without a key, whole and cut to 16 digits."""
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        data = text.encode(encoding)
        yield data
        yield data.hex().encode()
        for prefix in (b"", b"patient:", b"uid:", b"name:"):
            for kind in (hashlib.sha256, hashlib.sha1, hashlib.md5):
                yield kind(prefix + data).digest()
                yield kind(prefix + data).hexdigest()[:16].encode()


def found_in(folder: Path, texts: list[str]) -> list[str]:
    """Which texts stand in any file of a folder, and where."""
    sought = [(text, form) for text in texts for form in forms(text)]
    found = []
    for path in sorted(folder.rglob("*")):
        inside = list(contents(path)) if path.is_file() else []
        inside.append(str(path.relative_to(folder)).encode())
        found += [f"{text} in {path}" for text, form in sought if any(form in part for part in inside)]
    return found
