"""Labels and label maps through the whole command: what is published, ignored, refused and told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image

from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs import scan
from crossdim.storage_schema.manifest import MANIFEST_PATH
from tests.pipelines.corpora import blob, picture, write_series
from tests.pipelines.dicom_files import dicom_bytes, series_bytes
from tests.pipelines.test_label_maps import labels, write

IMAGES = ("--recipe", "xray-pseudo3d:tiny")
VOLUMES = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16")
#: Modality and SOP class.
SEGMENTATIONS = [("SEG", "1.2.840.10008.5.1.4.1.1.7"), *(("OT", f"1.2.840.10008.5.1.4.1.1.66.{n}") for n in (4, 5, 7, 8))]


def rows(dataset: Path, table: str) -> list[dict]:
    return pq.read_table(dataset / table).to_pylist()


def test_a_data_set_of_nnunet_becomes_its_images_alone(tmp_path, capsys):
    """Exit code 0: nothing is wrong with label maps. Who means them takes them; the same line gives the same bytes."""
    for number in range(2):
        write(tmp_path / "raw" / "imagesTr" / f"a_{number}_0000.nii.gz", blob((24, 20, 18), number))
        write(tmp_path / "raw" / "labelsTr" / f"a_{number}.nii.gz", labels((24, 20, 18), 3 + number))
    line = ["prepare", str(tmp_path / "raw"), *VOLUMES]

    assert main([*line, "--out", str(tmp_path / "one")]) == 0
    said = capsys.readouterr()
    assert main([*line, "--out", str(tmp_path / "two")]) == 0
    assert main([*line, "--out", str(tmp_path / "all"), "--include-label-maps"]) == 0
    assert {row["source_uri"] for row in rows(tmp_path / "one", "catalog")} == {f"imagesTr/a_{n}_0000.nii.gz" for n in range(2)}
    assert [(row["uri"], row["rule"]) for row in rows(tmp_path / "one", "ignored")] == [
        (f"labelsTr/a_{n}.nii.gz", "label_map") for n in range(2)
    ]
    assert "2 files are label maps, such as 'labelsTr/a_0.nii.gz'" in said.err
    assert "label_map 2" in said.out
    assert (tmp_path / "one" / MANIFEST_PATH).read_bytes() == (tmp_path / "two" / MANIFEST_PATH).read_bytes()
    assert len({row["source_uri"] for row in rows(tmp_path / "all", "catalog")}) == 4


def test_a_source_of_label_maps_alone_is_not_published_and_says_why(tmp_path, capsys):
    write(tmp_path / "task" / "labelsTr" / "a.nii.gz", labels((24, 20, 18), 3))

    for source in (tmp_path / "task", tmp_path / "task" / "labelsTr"):
        assert main(["prepare", str(source), *VOLUMES, "--out", str(tmp_path / "out")]) == 2
        assert "1 file is a label map" in (last := capsys.readouterr().err.splitlines()[-1])
        assert "--include-label-maps takes them as images" in last


def test_equal_images_in_two_classes_are_refused_under_both_names(tmp_path):
    """In one row of the plan and in two."""
    for folder in ("sick", "well"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(picture(number + 10 * (folder == "sick"))).save(tmp_path / "raw" / folder / f"{number}.png")
    shutil.copy(tmp_path / "raw" / "sick" / "0.png", tmp_path / "raw" / "well" / "same.png")
    for name, more in (("one", []), ("two", ["--set", "shard.max_samples=2"])):
        line = ["prepare", str(tmp_path / "raw"), *IMAGES, "--label", "folder", "--out", str(tmp_path / name), *more]

        assert main(line) == 3
        assert {(row["uri"], row["rule"]) for row in rows(tmp_path / name, "quarantine")} == {
            ("sick/0.png", "label_conflict"),
            ("well/same.png", "label_conflict"),
        }
        assert len(rows(tmp_path / name, "catalog")) == 5


def test_the_fit_of_a_table_is_told_before_the_scan(tmp_path, capsys, monkeypatch):
    (tmp_path / "raw").mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(tmp_path / "raw" / f"{number}.png")
    (tmp_path / "t.csv").write_text("path;kind\n./0.png;x\n9.png;y\n")
    at_scan = []

    def each(documents, work, **_):
        at_scan.append(capsys.readouterr().err)
        return map(work, documents)

    monkeypatch.setattr(scan, "run_each", each)
    line = ["prepare", str(tmp_path / "raw"), *IMAGES, "--labels", str(tmp_path / "t.csv"), "--label-column", "kind"]

    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    assert "labels: 1 of 3 files named; 2 without, such as '1.png'" in at_scan[0]
    assert "labels: 1 of 2 rows name no file, such as '9.png' in line 3" in at_scan[0]
    assert {row["source_uri"]: row["label"] for row in rows(tmp_path / "out", "catalog")} == {
        "0.png": "x",
        "1.png": None,
        "2.png": None,
    }


def test_a_series_is_labelled_by_its_uid_and_refused_if_its_slices_do_not_agree(tmp_path):
    for number in range(3):
        write_series(tmp_path / "raw" / f"s{number}", blob((8, 24, 20), number), f"1.2.840.{number}")
    slices = sorted(path.name for path in (tmp_path / "raw" / "s2").iterdir())
    table = f"path,kind\n1.2.840.0,x\ns1,y\ns2/{slices[0]},x\ns2/{slices[1]},y\n"
    (tmp_path / "t.csv").write_text(table)
    line = ["prepare", str(tmp_path / "raw"), *VOLUMES, "--labels", str(tmp_path / "t.csv"), "--label-column", "kind"]

    assert main([*line, "--out", str(tmp_path / "out")]) == 3
    assert {row["label"] for row in rows(tmp_path / "out", "catalog")} == {"x", "y"}
    assert [(row["rule"], row["num_files"]) for row in rows(tmp_path / "out", "quarantine")] == [("label_conflict", 8)]


def test_a_headers_modality_wins_over_folders_and_options_even_if_we_have_no_word_for_it(tmp_path):
    write_series(tmp_path / "raw" / "mr", blob((8, 24, 20), 1), "1.2.840.1")
    for path in (tmp_path / "raw" / "mr").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.Modality = "OPT"
        dataset.save_as(path)

    assert main(["prepare", str(tmp_path / "raw"), *VOLUMES, "--out", str(tmp_path / "out"), "--modality", "MR"]) == 0
    assert {row["modality"] for row in rows(tmp_path / "out", "catalog")} == {"OT"}


@pytest.mark.parametrize("recipe", [IMAGES, VOLUMES])
def test_dicom_segmentations_are_label_maps_by_class_or_modality(tmp_path, recipe):
    raw = tmp_path / "raw"
    write_series(raw / "ct", blob((24, 64, 64), 1), "1.8")
    for number, (modality, sop_class) in enumerate(SEGMENTATIONS):
        tags = {"Modality": modality, "SOPClassUID": sop_class, "SeriesInstanceUID": f"1.9.{number}"}
        (raw / f"{number}.dcm").write_bytes(dicom_bytes(picture(number).astype("u1")[:20, :20] // 100, **tags))

    assert main(["prepare", str(raw), *recipe, "--out", str(tmp_path / "out")]) == 0
    assert [row["rule"] for row in rows(tmp_path / "out", "ignored")] == ["label_map"] * len(SEGMENTATIONS)
    assert all("DICOM segmentation" in row["reason"] for row in rows(tmp_path / "out", "ignored"))


def test_a_row_with_a_uid_that_two_patients_share_is_a_row_for_two_inputs(tmp_path, capsys):
    table = tmp_path / "t.csv"
    table.write_text("path,label,who\n1.2.3.4.5,sick,X\n")
    for patient in ("A", "B"):
        tags = {"PatientID": patient, "StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.3.4.5"}
        folder = tmp_path / "raw" / patient
        folder.mkdir(parents=True)
        for number, data in enumerate(series_bytes(blob((24, 20, 18), 1).astype("<i2"), **tags)):
            (folder / f"{number}.dcm").write_bytes(data)
    for recipe in (IMAGES, VOLUMES):
        line = ["--labels", str(table), "--label-column", "label", "--patient-column", "who", "--out", str(tmp_path / "out")]

        assert main(["prepare", str(tmp_path / "raw"), *recipe, *line]) == 1
        assert "line 2: '1.2.3.4.5' names 2 inputs" in capsys.readouterr().err
    assert not (tmp_path / "out" / MANIFEST_PATH).exists()


def write_scan(folder: Path, uid: str, patient: str, seed: int) -> None:
    write_series(folder, blob((12, 24, 24), seed), uid)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientID = patient
        dataset.save_as(path)


def test_a_row_for_one_slice_gives_the_series_no_label_and_says_so(tmp_path, capsys):
    """The other series has a row of its own, and one of its slices is stored twice without a row."""
    write_scan(tmp_path / "raw" / "a", "1.2.1", "A", 1)
    write_scan(tmp_path / "raw" / "b", "1.2.2", "B", 2)
    shutil.copy(next((tmp_path / "raw" / "b").iterdir()), tmp_path / "raw" / "copy.dcm")
    (tmp_path / "t.csv").write_text("path,finding\na/07.dcm,x\nb,y\n")
    line = ["prepare", str(tmp_path / "raw"), *VOLUMES, "--labels", str(tmp_path / "t.csv"), "--label-column", "finding"]

    assert main([*line, "--out", str(tmp_path / "out")]) == 3
    assert {row["label"] for row in rows(tmp_path / "out", "catalog")} == {"y"}
    assert [(row["rule"], row["num_files"]) for row in rows(tmp_path / "out", "quarantine")] == [
        ("partial_label", 12),
        ("duplicate", 1),
    ]


@pytest.mark.parametrize(
    ("table", "lines"),
    [
        ("a,A\nb,A\nc,B\n", []),
        ("a,1\nb,1\nc,2\n", ["in 3 inputs; the table's is taken"]),
        ("a,1\nb,2\nc,3\n", ["in 3 inputs; the table's is taken", "inputs of 1 patient of the headers are of several patients"]),
        ("a,1\n", ["in 1 input; the table's is taken", "inputs of 1 patient of the headers are of several patients"]),
        ("c,A\n", ["in 1 input; the table's is taken"]),
    ],
)
def test_a_patient_of_the_table_that_is_not_the_headers_is_told(table, lines, tmp_path, capsys):
    for name, uid, patient in (("a", "1.2.1", "A"), ("b", "1.2.2", "A"), ("c", "1.2.3", "B")):
        write_scan(tmp_path / "raw" / name, uid, patient, len(uid) + ord(name))
    (tmp_path / "t.csv").write_text(f"path,who\n{table}")
    line = ["prepare", str(tmp_path / "raw"), *VOLUMES, "--labels", str(tmp_path / "t.csv"), "--patient-column", "who"]

    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    said = [one for one in capsys.readouterr().out.splitlines() if one.startswith("patients:")]
    assert len(said) == len(lines)
    assert all(wanted in one for wanted, one in zip(lines, said, strict=True))


@pytest.mark.parametrize("max_samples", [1, 4096])
@pytest.mark.parametrize("kind", ["images", "volumes"])
@pytest.mark.parametrize(
    ("table", "rule", "wanted"),
    [
        ("b,x,\n", "duplicate", {("b", "x")}),
        ("a,x,\n", "duplicate", {("a", "x")}),
        ("c,x,p\n", "duplicate", {("c", "x")}),
        ("b,x,\nc,x,p\n", "duplicate", {("c", "x")}),
        ("a,x,p\nb,x,q\n", "patient_conflict", set()),
        ("b,x,\nc,y,\n", "label_conflict", set()),
    ],
)
@pytest.mark.integration
def test_of_equal_files_the_one_that_most_is_known_of_is_kept(table, rule, wanted, kind, max_samples, tmp_path, capsys):
    """In one object or in several; what is published can be read to the end."""
    (tmp_path / "raw").mkdir()
    for name in "abcd":
        if kind == "images":
            Image.fromarray(picture(name == "d")).save(tmp_path / "raw" / f"{name}.png")
        else:
            write(tmp_path / "raw" / f"{name}.nii", blob((24, 20, 18), name == "d"))
    end = ".png" if kind == "images" else ".nii"
    rows_of_table = "".join(f"{line.replace(',', end + ',', 1)}\n" for line in table.splitlines())
    (tmp_path / "t.csv").write_text(f"path,finding,who\n{rows_of_table}d{end},z,r\n")
    recipe = [*IMAGES, "--set", f"shard.max_samples={max_samples}"]
    recipe = recipe if kind == "images" else [*VOLUMES, "--set", f"patches_per_shard={min(max_samples, 32)}"]
    line = ["prepare", str(tmp_path / "raw"), *recipe, "--labels", str(tmp_path / "t.csv"), "--label-column", "finding"]
    assert main([*line, "--patient-column", "who", "--out", str(tmp_path / "out")]) == 3

    kept = {(row["source_uri"], row["label"]) for row in rows(tmp_path / "out", "catalog")}
    assert kept == {(f"{name}{end}", label) for name, label in wanted | {("d", "z")}}
    quarantine = rows(tmp_path / "out", "quarantine")
    assert [row["rule"] for row in quarantine] == [rule] * (3 - len(wanted))
    assert main(["verify", str(tmp_path / "out")]) == 0
