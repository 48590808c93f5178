"""What tells that a source holds patients' data, and what tells one patient from another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossdim.pipelines.cli import main
from crossdim.storage_schema.errors import SampleError
from tests.pipelines.corpora import blob, picture
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, read_series

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
PIXELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def rows(dataset: Path, table: str) -> list[dict]:
    return pq.read_table(dataset / table).to_pylist()


NO_IMAGE = {"Rows": None, "Columns": None, "PixelData": None}
#: Files whose content is DICOM, none of which becomes an input; by name.
NOT_USED = {
    "IM0001": dicom_bytes(PIXELS, SOPClassUID=BASIC_TEXT_SR, Modality="SR", **NO_IMAGE),
    "DICOMDIR": dicom_bytes(PIXELS, SOPClassUID="1.2.840.10008.1.3.10", **NO_IMAGE),
    "IM0002": dicom_bytes(PIXELS, PixelData=None),
    "IM0003": dicom_bytes(PIXELS)[:300],
    "IM0004": dicom_bytes(PIXELS, BitsAllocated=("LO", "many")),
    "scan.png": dicom_bytes(PIXELS),
    "dicomdir": b"",
    "notes.txt": dicom_bytes(PIXELS, **NO_IMAGE),
    "IM0005": dicom_bytes(PIXELS)[132:],
}


@pytest.mark.parametrize("name", NOT_USED)
def test_a_dicom_object_that_is_not_used_hashes_the_names_of_its_source_too(tmp_path, name):
    """A report or a damaged export lies in a folder that is called after its patient, as the pictures beside it do."""
    folder = tmp_path / "raw" / "DOE_JANE_19610203"
    folder.mkdir(parents=True)
    Image.fromarray(picture(1)).save(folder / "1.png")
    (folder / name).write_bytes(NOT_USED[name])

    assert main(["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "out")]) in (0, 3)
    published = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert published
    assert not any(b"DOE_JANE" in path.read_bytes() for path in published)
    assert all(row["source_uri"].startswith("hashed:") for row in rows(tmp_path / "out", "catalog"))


def write_two(folder: Path, one: dict[str, str], two: dict[str, str]) -> None:
    """A series of 16 slices: its first half says ``one`` of its patient, the other ``two``."""
    volume = blob((16, 24, 24), 1).astype(np.int16)
    tags = {**AXIAL, "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "RescaleSlope": 1, "RescaleIntercept": 0}
    for depth, pixels in enumerate(volume):
        said = one if depth < 8 else two
        place = [0, 0, 2 * depth]
        (folder / f"{depth:02d}.dcm").write_bytes(dicom_bytes(pixels, ImagePositionPatient=place, **tags, **said))


def prepare_two(tmp_path: Path, one: dict[str, str], two: dict[str, str]) -> Path:
    (tmp_path / "raw").mkdir()
    write_two(tmp_path / "raw", one, two)
    line = ["--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16", "--set", "superpatch.min_foreground=0.001"]
    main(["prepare", str(tmp_path / "raw"), *line, "--out", str(tmp_path / "out")])
    return tmp_path / "out"


DOE = {"PatientID": "", "PatientName": "DOE^A", "PatientBirthDate": "19500101"}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (DOE, {**DOE, "PatientName": "ROE^B", "PatientBirthDate": "20010101"}),
        (DOE, {**DOE, "PatientName": "ROE^B"}),
        (DOE, {**DOE, "PatientBirthDate": "20010101"}),
        (DOE, {"PatientName": "DOE^A"}),
        (DOE, {}),
        ({"PatientID": "7", "IssuerOfPatientID": "A"}, {"PatientID": "7", "IssuerOfPatientID": "B"}),
        ({"PatientID": "7", "IssuerOfPatientID": "A"}, {"PatientID": "7"}),
        ({"PatientID": "7"}, {"PatientID": "8"}),
    ],
)
def test_halves_of_a_series_that_are_of_two_patients_are_two_volumes(tmp_path, one, two):
    catalog = rows(prepare_two(tmp_path, one, two), "catalog")

    assert len({row["source_uri"] for row in catalog}) == 2
    assert len({row["patient"] for row in catalog}) == 2


@pytest.mark.parametrize("other", [{"PatientName": "Doe^A^^^"}, {"PatientName": "DOE^A "}, {"PatientName": "doe^a"}])
def test_one_name_in_two_spellings_of_the_standard_is_one_patient(tmp_path, other):
    assert len({row["source_uri"] for row in rows(prepare_two(tmp_path, DOE, {**DOE, **other}), "catalog")}) == 1


def test_a_name_that_was_corrected_is_noted_and_two_people_of_one_id_are_refused(tmp_path):
    one = {"PatientID": "7", "PatientName": "PLANT^A", "PatientBirthDate": "19500101"}
    catalog = rows(prepare_two(tmp_path, one, {**one, "PatientName": "PLANT^B"}), "catalog")

    assert len({row["source_uri"] for row in catalog}) == 1
    assert all("PatientName differs" in row["note"] and "PLANT" not in str(row) for row in catalog)
    write_two(tmp_path / "raw", one, {**one, "PatientName": "PLANT^B", "PatientBirthDate": "19600101"})
    files = tuple(path.read_bytes() for path in sorted((tmp_path / "raw").glob("*.dcm")))
    with pytest.raises(SampleError, match="several names and dates of birth") as refused:
        read_series(files)
    assert refused.value.rule == "mixed_patient"
    assert "PLANT" not in refused.value.reason
