"""What prepare prints: one number for one thing, and nouns that agree with their numbers."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from crossdim.foundation.counts import count
from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs import planning
from crossdim.pipelines.jobs.recipe import RECIPE_FOR
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.recipes import resolve
from crossdim.storage_schema.errors import SampleError
from tests.pipelines.corpora import blob, nifti_bytes, write_images, write_series

RECIPE = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16")


def test_nouns_agree_with_their_numbers():
    assert [count(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]


def test_quarantined_inputs_and_quarantined_files_are_told_apart(tmp_path: Path, capsys):
    """A series of five files without an even grid is one input."""
    raw = tmp_path / "raw"
    write_series(raw / "bad", blob((6, 24, 24), 1), "1.2.3")
    next((raw / "bad").glob("14.dcm")).unlink()
    (raw / "v.nii").write_bytes(nifti_bytes(blob((24, 24, 24), 2), (2.0, 2.0, 2.0)))
    line = ["prepare", str(raw), *RECIPE, "--gaps", "refuse", "--out", str(tmp_path / "out")]
    assert main(line) == 3
    message = capsys.readouterr().out
    assert main([*line, "--json"]) == 3
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert "files: 6 = 1 used, 5 quarantined, 0 ignored\nquarantined 1 input (5 files): irregular_spacing 1;" in message
    assert not re.search(r"\b1 (files|inputs|objects|samples|rows)\b", message)
    assert (answer["quarantined"], answer["quarantined_inputs"], answer["quarantined_files"]) == (1, 1, 5)
    assert answer["files"]["quarantined"] == 5


@pytest.mark.parametrize("length", [2, 5, 10, 11, 20, 60])
def test_a_compressed_volume_cut_before_the_end_of_its_header_is_truncated(length):
    data = gzip.compress(nifti_bytes(blob((24, 24, 24), 2), (2.0, 2.0, 2.0)), mtime=0)[:length]
    with pytest.raises(SampleError) as caught:
        probe("v.nii.gz", len(data), lambda n: data[:n], ReadRules())
    assert caught.value.rule == "truncated"


@pytest.mark.parametrize("length", [0, 40, 5000])
def test_a_whole_gzip_file_of_something_else_is_not_truncated(length):
    data = gzip.compress(b"x" * length, mtime=0)
    with pytest.raises(SampleError) as caught:
        probe("v.nii.gz", len(data), lambda n: data[:n], ReadRules())
    assert caught.value.rule == "wrong_format"


def test_files_that_another_recipe_reads_are_told_with_its_name_and_leave_nothing_behind(tmp_path: Path, capsys):
    write_images(tmp_path / "raw")
    assert main(["prepare", str(tmp_path / "raw"), *RECIPE, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err

    assert "--recipe xray-pseudo3d reads 14 of them" in message
    assert ".;" not in message
    assert ".." not in message
    assert not (tmp_path / "out" / "_work").exists()
    assert all(resolve(name).reads == kind for kind, name in RECIPE_FOR.items())


def test_a_refused_preparation_makes_no_key(tmp_path: Path, capsys):
    """One patient alone cannot be split."""
    write_series(tmp_path / "raw" / "a", blob((12, 24, 24), 1), "1.2.3")
    line = ["prepare", str(tmp_path / "raw"), *RECIPE, "--out", str(tmp_path / "out")]
    assert main([*line, "--test-fraction", "0.5"]) == 1
    assert "one and the same patient" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {"a"}
    assert not (tmp_path / "out" / "_work").exists()

    assert main(line) == 0
    message = capsys.readouterr().err
    assert message.count("is the new secret key of this data's hashes") == 1
    assert "INFO" not in message


@pytest.mark.parametrize("option", ["--salt-file", "--credentials-file", "--labels", "SRC"])
def test_a_file_of_the_command_line_that_does_not_exist_is_exit_code_2(option, tmp_path: Path, capsys):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "v.nii").write_bytes(nifti_bytes(blob((24, 24, 24), 2), (2.0, 2.0, 2.0)))
    source = tmp_path / ("absent" if option == "SRC" else "raw")
    more = [] if option == "SRC" else [option, str(tmp_path / "absent")]
    more += ["--label-column", "x"] if option == "--labels" else []
    assert main(["prepare", str(source), *RECIPE, "--out", str(tmp_path / "out"), *more]) == 2
    assert str(tmp_path / "absent") in capsys.readouterr().err


def test_one_patient_in_the_table_is_refused_before_the_scan(tmp_path: Path, capsys, monkeypatch):
    write_images(tmp_path / "raw")
    paths = [path.relative_to(tmp_path / "raw") for path in (tmp_path / "raw").rglob("*.png")]
    (tmp_path / "t.csv").write_text("\n".join(["path,who", *(f"{path},x" for path in paths)]))
    monkeypatch.setattr(planning, "scan", None)
    line = ["prepare", str(tmp_path / "raw"), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "out")]
    assert main([*line, "--test-fraction", "0.5", "--labels", str(tmp_path / "t.csv"), "--patient-column", "who"]) == 1
    assert "one and the same patient" in capsys.readouterr().err


@pytest.mark.parametrize("rule", ["relative", "hashed"])
def test_readable_names_of_dicom_files_are_told(rule, tmp_path: Path, capsys):
    write_series(tmp_path / "raw" / "a", blob((12, 24, 24), 1), "1.2.3")
    assert main(["prepare", str(tmp_path / "raw"), *RECIPE, "--out", str(tmp_path / "out"), "--source-names", rule]) == 0
    assert ("are published readable" in capsys.readouterr().out) is (rule == "relative")
