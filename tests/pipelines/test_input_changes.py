"""Files that were added, changed or removed since a dataset was published are counted, and the first are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.cli import main
from tests.pipelines.corpora import blob, write_images, write_series

IMAGES = ("--recipe", "xray-pseudo3d:tiny")
VOLUMES = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16")


def line(folder: Path, recipe: tuple[str, ...], *more: str) -> list[str]:
    return ["prepare", str(folder / "raw"), *recipe, "--out", str(folder / "out"), *more]


def rewrite(path: Path) -> None:
    """Another content of the same size, written a second later."""
    data = bytearray(path.read_bytes())
    data[-101] ^= 1
    path.write_bytes(data)
    later = os.stat(path).st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def test_added_changed_and_removed_files_are_counted_and_named(tmp_path, capsys):
    """One of another size, one of the same size, one that is there under another name too."""
    raw = tmp_path / "raw"
    write_images(raw)
    assert main(line(tmp_path, IMAGES)) == 3
    os.rename(raw / "well" / "p001.png", raw / "well" / "moved.png")
    (raw / "well" / "p002.png").write_bytes((raw / "well" / "p005.png").read_bytes() + b"\0")
    rewrite(raw / "well" / "p004.png")
    capsys.readouterr()
    assert main(line(tmp_path, IMAGES)) == 2

    said = capsys.readouterr().err
    assert "made from other files: 1 file added, 2 changed, 1 gone" in said
    assert "(added: well/moved.png; changed: well/p002.png, well/p004.png; gone: well/p001.png)" in said


@pytest.mark.parametrize("names", ["hashed", "relative"])
def test_one_slice_of_a_series_is_one_file_and_a_series_that_lost_one_is_not_changed_besides(names, tmp_path, capsys):
    """Also under hashed names, which the key leads to: files that are gone are named by the table of names."""
    raw = tmp_path / "raw"
    write_series(raw / "s", blob((12, 24, 24), 2), "1.2.3.4")
    write_series(raw / "t", blob((12, 24, 24), 3), "1.2.3.5")
    assert main(line(tmp_path, VOLUMES, "--source-names", names)) == 0
    rewrite(raw / "s" / "07.dcm")
    first = min((raw / "t").iterdir())
    first.unlink()
    (raw / "u.txt").write_text("new")
    capsys.readouterr()
    assert main(line(tmp_path, VOLUMES, "--source-names", names)) == 2

    expected = f"1 file added, 1 changed, 1 gone (added: u.txt; changed: s/07.dcm; gone: t/{first.name})"
    assert expected in capsys.readouterr().err


def test_the_record_of_inputs_holds_no_path_where_names_are_hashed_and_no_table_of_labels(tmp_path):
    """It lies beside the manifest, so whoever gets the dataset gets it."""
    raw = tmp_path / "raw"
    write_series(raw / "mueller", blob((12, 24, 24), 2), "1.2.3.4")
    (tmp_path / "t.csv").write_text("path,kind,who\nmueller,secret-word,hans\n")
    table = ["--labels", str(tmp_path / "t.csv"), "--label-column", "kind", "--patient-column", "who"]
    assert main(line(tmp_path, VOLUMES, *table)) == 0
    (record,) = (tmp_path / "out" / "inputs").iterdir()
    text = record.read_text()

    assert not any(word in text for word in ("mueller", "secret-word", "hans", "/07.dcm", '"labels"'))
    assert text.count('"size"') == 12


def test_records_of_equal_preparations_are_equal(tmp_path):
    for name in ("one", "two"):
        write_images(tmp_path / name / "raw")
        assert main(line(tmp_path / name, IMAGES)) == 3
    (one,), (two,) = ((tmp_path / name / "out" / "inputs").iterdir() for name in ("one", "two"))

    assert (one.name, one.read_bytes()) == (two.name, two.read_bytes())


def test_a_damaged_record_is_told_and_not_taken_for_other_inputs(tmp_path, capsys):
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    (record,) = (tmp_path / "out" / "inputs").iterdir()
    record.write_bytes(record.read_bytes().replace(b"p001", b"p901"))
    assert main(line(tmp_path, IMAGES)) == 2

    assert "record of what" in capsys.readouterr().err


def test_a_dataset_without_a_record_is_refused_by_the_number_of_its_files(tmp_path, capsys):
    """As those are that were made before there were records."""
    write_images(tmp_path / "raw")
    assert main(line(tmp_path, IMAGES)) == 3
    Bucket(str(tmp_path / "out")).delete("inputs")
    (tmp_path / "raw" / "new.txt").write_text("new")
    assert main(line(tmp_path, IMAGES)) == 2

    assert "made from 15 files, where there are 16 now" in capsys.readouterr().err
