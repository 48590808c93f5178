"""Folders called after patients are no labels: where headers say so it is refused, where it may be so it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs.folder_labels import is_spelled
from tests.pipelines.corpora import picture
from tests.pipelines.dicom_files import dicom_bytes


def prepare(tmp_path: Path, *options: str) -> int:
    line = ["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "out")]
    return main([*line, "--label", "folder", *options])


def write(folder: Path, name: str, patient: str, seed: int) -> None:
    """A radiograph of a patient."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = picture(seed).astype(np.uint16)
    tags = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": name, "PatientID": patient, "SOPInstanceUID": f"1.2.{seed}"}
    (folder / f"{seed}.dcm").write_bytes(dicom_bytes(pixels, **tags))


@pytest.mark.parametrize(
    ("folder", "name", "patient"),
    [
        ("DOE_JANE_19610203", "Doe^Jane", "7"),
        ("jane doe", "DOE^JANE^^^", "7"),
        ("DoeJane", "DOE^JANE", ""),
        ("4711-0", "ANON", "4711-0"),
        ("pat47110", "", "47110"),
        ("山田 太郎", "Yamada^Tarou=山田^太郎", "7"),
    ],
)
def test_a_folder_that_is_called_as_the_header_calls_the_patient_is_refused(folder, name, patient, tmp_path, capsys):
    for seed in (1, 2):
        write(tmp_path / "raw" / folder, name, patient, seed)
    write(tmp_path / "raw" / "normal", "ROE^R", "8", 3)

    assert is_spelled(name, folder) or is_spelled(patient, folder)
    assert prepare(tmp_path) == 1
    message = capsys.readouterr().err
    assert "--label folder would publish the names of 1 folder, such as that of " in message
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_classes_are_labels_also_where_an_anonymiser_called_patients_so(tmp_path, capsys):
    """Several patients of one folder: nobody is called after it."""
    for seed, folder in enumerate(("normal", "normal", "sick", "sick")):
        write(tmp_path / "raw" / folder, folder, f"{seed}", seed)

    assert prepare(tmp_path) == 0
    assert {row["label"] for row in pq.read_table(tmp_path / "out" / "catalog").to_pylist()} == {"normal", "sick"}
    assert "folder names as labels" not in capsys.readouterr().out


@pytest.mark.parametrize(("patients", "each", "is_told"), [(4, 1, True), (4, 2, True), (4, 3, False), (2, 1, False)])
def test_a_label_for_nearly_every_picture_is_told(patients, each, is_told, tmp_path, capsys):
    for patient in range(patients):
        for number in range(each):
            folder = tmp_path / "raw" / f"p{patient}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(10 * patient + number)).save(folder / f"{number}.png")

    assert prepare(tmp_path) == 0
    message = f"{patients * each} inputs have {patients} different folder names as labels, which are published readable"
    assert (message in capsys.readouterr().out) is is_told


@pytest.mark.parametrize(("each", "is_told"), [(1, True), (3, True)])
def test_a_label_for_every_patient_of_the_headers_is_told(each, is_told, tmp_path, capsys):
    for patient in range(3):
        for number in range(each):
            write(tmp_path / "raw" / f"case {'abc'[patient]}", "", f"77{patient}", 10 * patient + number)

    assert prepare(tmp_path) == 0
    assert ("folder names as labels" in capsys.readouterr().out) is is_told


@pytest.mark.parametrize(
    ("name", "label"), [("Doe^Jane", "normal"), ("Li^X", "lingual"), ("7", "class 17"), ("", ""), ("^^", "a"), ("A^B", "a b c")]
)
def test_other_words_are_no_names(name, label):
    assert not is_spelled(name, label)
