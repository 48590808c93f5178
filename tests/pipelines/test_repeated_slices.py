"""Files of a series that are stored twice: equal content counts once, however few slices there are."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pydicom
import pytest

from crossdim.pipelines.cli import main
from tests.pipelines.corpora import blob, write_series


def outcome_of(raw: Path, out: Path, capsys) -> dict:
    """What ``prepare --json`` says, with its exit code."""
    capsys.readouterr()
    recipe = ["--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16"]
    code = main(["prepare", str(raw), *recipe, "--out", str(out), "--source-names", "relative", "--json"])
    printed = capsys.readouterr()
    return {"code": code, "err": printed.err} | (json.loads(printed.out.splitlines()[-1]) if printed.out else {})


def write_slices(folder: Path, num_slices: int) -> list[Path]:
    """Slices 20 mm thick, so that one of them fills boxes."""
    write_series(folder, blob((12, 24, 24), 3)[4 : 4 + num_slices], "1.2.3", spacing_mm=(20.0, 1.5, 1.5))
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        ds.SliceThickness = 20
        ds.save_as(path)
    return sorted(folder.iterdir())


@pytest.mark.parametrize(("num_slices", "num_twice"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (8, 8)])
def test_slices_stored_twice_count_once_and_give_the_samples_of_the_series_alone(num_slices, num_twice, tmp_path, capsys):
    paths = write_slices(tmp_path / "once" / "a", num_slices)
    write_slices(tmp_path / "twice" / "a", num_slices)
    for number in range(num_twice):
        copy = tmp_path / "twice" / "b" / f"{number}.dcm"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(paths[number % num_slices], copy)
    once = outcome_of(tmp_path / "once", tmp_path / "out1", capsys)
    twice = outcome_of(tmp_path / "twice", tmp_path / "out2", capsys)

    assert once["code"] == 0, once["err"]
    assert twice["code"] == 3
    assert twice["quarantined_by_rule"] == {"duplicate": num_twice}
    assert twice["files"] == {"total": num_slices + num_twice, "used": num_slices, "quarantined": num_twice, "ignored": 0}
    banks = [
        [(one["path"], one["sha256"]) for one in json.loads((tmp_path / out / "manifest.json").read_bytes())["objects"]]
        for out in ("out1", "out2")
    ]
    banks = [[one for one in bank if not one[0].startswith(("catalog", "quarantine", "ignored"))] for bank in banks]
    assert len(banks[0]) > 1
    assert banks[0] == banks[1]


def damage(path: Path, how: str) -> None:
    """Make one file of a slice unreadable; its header stays."""
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[:-100])
    else:
        ds = pydicom.dcmread(path)
        ds.BitsStored, ds.HighBit = 40, 39
        ds.save_as(path)


@pytest.mark.parametrize("how", ["cut", "bits"])
@pytest.mark.parametrize("twice", [1, 8])
def test_a_damaged_file_with_a_sound_copy_is_left_out_and_told(how, twice, tmp_path, capsys):
    """One slice or the whole series is stored twice; the series is that of its sound files."""
    write_slices(tmp_path / "once" / "a", 8)
    paths = write_slices(tmp_path / "raw" / "a", 8)
    (tmp_path / "raw" / "b").mkdir()
    for path in paths[:twice]:
        shutil.copy(path, tmp_path / "raw" / "b")
    damage(paths[0], how)
    once, found = (outcome_of(tmp_path / raw, tmp_path / f"out_{raw}", capsys) for raw in ("once", "raw"))

    assert (once["code"], found["code"]) == (0, 3)
    quarantine = pq.read_table(tmp_path / "out_raw" / "quarantine").to_pylist()
    assert Counter(row["rule"] for row in quarantine)["duplicate"] == twice - 1
    (row,) = [row for row in quarantine if row["rule"] != "duplicate"]
    assert (row["uri"], row["stage"]) == (f"a/{paths[0].name}", "decode")
    assert row["rule"] == ("truncated" if how == "cut" else "damaged")
    assert row["reason"].endswith("; a sound copy is used")
    assert found["files"] == {"total": 8 + twice, "used": 8, "quarantined": twice, "ignored": 0}
    catalogs = [pq.read_table(tmp_path / f"out_{raw}" / "catalog").to_pylist() for raw in ("once", "raw")]
    assert [row["crc32c"] for row in catalogs[0]] == [row["crc32c"] for row in catalogs[1]]
    assert all("1 damaged file left out, with a sound copy" in row["note"] for row in catalogs[1])
    assert main(["verify", str(tmp_path / "out_raw")]) == 0


@pytest.mark.parametrize("copies", ["none", "damaged", "elsewhere"])
def test_a_damaged_slice_without_a_sound_copy_refuses_its_series(copies, tmp_path, capsys):
    paths = write_slices(tmp_path / "raw" / "a", 8)
    copy = tmp_path / "raw" / "b.dcm"
    if copies != "none":
        shutil.copy(paths[0], copy)
    if copies == "damaged":
        damage(copy, "bits")
    if copies == "elsewhere":  # of another series
        ds = pydicom.dcmread(copy)
        ds.SeriesInstanceUID = "1.2.9"
        ds.save_as(copy)
    damage(paths[0], "cut")
    found = outcome_of(tmp_path / "raw", tmp_path / "out", capsys)

    assert found.get("files", {"used": 0})["used"] == (copies == "elsewhere")


@pytest.mark.parametrize("same_size", [True, False])
def test_two_slices_of_one_position_that_differ_are_refused(same_size, tmp_path, capsys):
    (path,) = write_slices(tmp_path / "raw" / "a", 1)
    ds = pydicom.dcmread(path)
    ds.PixelData = bytes(len(ds.PixelData))
    if not same_size:
        ds.ImageComments = "longer"
    ds.save_as(path.with_name("other.dcm"))
    found = outcome_of(tmp_path / "raw", tmp_path / "out", capsys)

    assert found["code"] == 2
    assert "[repeated_position]" in found["err"]


def export_again(path: Path, to: Path, **tags: object) -> None:
    """The same pixels in another compression, under another UID, with a comment."""
    ds = pydicom.dcmread(path)
    ds.compress(pydicom.uid.RLELossless)
    ds.SOPInstanceUID = pydicom.uid.generate_uid()
    ds.ImageComments = "exported again"
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    ds.save_as(to)


@pytest.mark.parametrize("num_twice", [1, 3, 8])
def test_slices_that_were_exported_again_count_once(num_twice, tmp_path, capsys):
    write_slices(tmp_path / "once" / "a", 8)
    paths = write_slices(tmp_path / "raw" / "a", 8)
    for path in paths[:num_twice]:
        export_again(path, path.with_name(f"z{path.name}"))
    once, found = (outcome_of(tmp_path / raw, tmp_path / f"out_{raw}", capsys) for raw in ("once", "raw"))

    assert (once["code"], found["code"]) == (0, 3)
    assert found["quarantined_by_rule"] == {"duplicate": num_twice}
    assert found["files"] == {"total": 8 + num_twice, "used": 8, "quarantined": num_twice, "ignored": 0}
    catalogs = [pq.read_table(tmp_path / f"out_{raw}" / "catalog").to_pylist() for raw in ("once", "raw")]
    assert [row["crc32c"] for row in catalogs[0]] == [row["crc32c"] for row in catalogs[1]]
    assert all("left out, with the pixels and place of another" in row["note"] for row in catalogs[1])
    refused = pq.read_table(tmp_path / "out_raw" / "quarantine").to_pylist()
    assert {Path(row["uri"]).name[0] for row in refused} == {"z"}


@pytest.mark.parametrize("tags", [{"RescaleIntercept": 5}, {"RescaleSlope": 2}, {"InstanceNumber": 900}])
def test_equal_pixels_that_mean_something_else_are_no_copies(tags, tmp_path, capsys):
    path = write_slices(tmp_path / "raw" / "a", 8)[0]
    export_again(path, path.with_name("z.dcm"), **tags)
    found = outcome_of(tmp_path / "raw", tmp_path / "out", capsys)

    assert found["code"] == 2
    assert "[repeated_position]" in found["err"]


def test_a_real_series_in_four_compressions_is_one_volume(real_data, tmp_path, capsys):
    """Uncompressed values are the same in all four; each slice is used once, and three files of each are told."""
    for name in ("d2n_j2k", "d2n_jpegll", "d2n_jpegls", "d2n_rle"):
        shutil.copytree(real_data / "dicom_series" / name, tmp_path / "raw" / name)
    shutil.copytree(real_data / "dicom_series" / "d2n_j2k", tmp_path / "once" / "d2n_j2k")
    once, found = (outcome_of(tmp_path / raw, tmp_path / f"out_{raw}", capsys) for raw in ("once", "raw"))

    assert once["files"] == {"total": 4, "used": 4, "quarantined": 0, "ignored": 0}
    assert found["files"] == {"total": 16, "used": 4, "quarantined": 12, "ignored": 0}
    assert found["quarantined_by_rule"] == {"duplicate": 12}
    catalogs = [pq.read_table(tmp_path / f"out_{raw}" / "catalog").to_pylist() for raw in ("once", "raw")]
    assert [row["crc32c"] for row in catalogs[0]] == [row["crc32c"] for row in catalogs[1]]


def test_a_slice_stored_twice_leaves_a_series_of_two_echoes_two_volumes(tmp_path, capsys):
    for echo in (1, 2):
        for path in write_slices(tmp_path / "raw" / str(echo), 8):
            ds = pydicom.dcmread(path)
            ds.EchoTime = 5 * echo
            ds.PixelData = (ds.pixel_array + echo).tobytes()
            ds.save_as(path)
    shutil.copy(path, path.with_name("again.dcm"))
    found = outcome_of(tmp_path / "raw", tmp_path / "out", capsys)

    assert found["files"] == {"total": 17, "used": 16, "quarantined": 1, "ignored": 0}
    assert found["quarantined_by_rule"] == {"duplicate": 1}
