"""The parts of a split: what they hold is told, and an empty one is refused before anything is published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs.splits import Part, check_parts, check_patients, count_parts, tell_parts
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.split import SplitRule
from tests.pipelines.corpora import picture

HALF = SplitRule(test_fraction=0.5)


def row(key: str, part: str, patient: str | None) -> dict[str, str]:
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    return {"key": key, "split": part, "patient": patient or sha256[:16], "source_sha256": sha256}


def test_parts_count_samples_patients_and_samples_without_one():
    rows = [
        row("1", "train", "a"),
        row("2", "train", "a"),
        row("3", "test", "b"),
        row("4", "train", None),
        row("5", "test", None),
    ]
    parts = count_parts([*rows, rows[0]])

    assert parts == {
        "test": Part(samples=2, patients=1, without_patient=1),
        "train": Part(samples=3, patients=1, without_patient=1),
    }
    assert str(parts["train"]) == "3 samples, 2 of 1 patient and 1 of unknown patients"
    assert tell_parts({"train": Part(samples=1), "test": Part(samples=1)}, HALF) == ["split: train 1 sample, test 1 sample"]
    assert tell_parts({"train": Part(samples=1)}, SplitRule()) == []
    stated = {"train": Part(samples=9), "test": Part(samples=1)}
    assert tell_parts(stated, SplitRule()) == ["split: train 9 samples, test 1 sample"], "by a source, without a share asked for"


@pytest.mark.parametrize(("num_test", "printed"), [(2, False), (3, False), (4, True), (9, True)])
def test_a_share_of_samples_far_from_the_one_asked_for_is_told(num_test, printed):
    parts = {"train": Part(samples=10 - num_test, patients=4), "test": Part(samples=num_test, patients=1)}
    (sentence,) = tell_parts(parts, SplitRule(test_fraction=0.25))

    assert sentence.startswith(f"split: train {parts['train']}, test {num_test} samples of 1 patient")
    assert (f"test has {num_test * 10}% of the samples where 25% was asked for" in sentence) is printed


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_part_is_refused(part):
    parts = {"train": Part(samples=9), "test": Part(samples=9)}
    check_parts(parts, HALF)
    del parts[part]
    with pytest.raises(StorageError, match=f"the {part} part would be empty: .* none of 9 samples"):
        check_parts(parts, HALF)
    if part == "test":
        check_parts(parts, SplitRule())


def test_an_empty_part_of_known_patients_is_refused_before_any_row_is_written():
    patients = [f"p{number}" for number in range(100)]
    tests = [patient for patient in patients if HALF.draw(patient) == "test"]
    check_patients(patients, HALF)
    with pytest.raises(StorageError, match=f"the train part would be empty: .* none of {len(tests)} patients"):
        check_patients(tests, HALF)
    check_patients([*tests, None], HALF)


def write(folder: Path, patients: list[str]) -> None:
    (folder / "raw").mkdir()
    for number in range(len(patients)):
        Image.fromarray(np.ascontiguousarray(picture(number))).save(folder / "raw" / f"{number}.png")
    lines = [f"{number}.png,{patient}" for number, patient in enumerate(patients)]
    (folder / "table.csv").write_text("\n".join(["path,who", *lines]))


def line(folder: Path, fraction: str, *more: str) -> list[str]:
    recipe = ("--recipe", "xray-pseudo3d:tiny", "--salt-file", str(folder / "key"))
    return ["prepare", str(folder / "raw"), *recipe, "--out", str(folder / "out"), "--test-fraction", fraction, *more]


def test_parts_are_told_at_first_and_again_and_another_fraction_begins_anew(tmp_path, capsys):
    """No row is written where all patients are known, so that nothing stands in the way of another share."""
    (tmp_path / "key").write_bytes(b"the secret key of this test")
    write(tmp_path, ["a", "b", "c", "d", "e", "f"])
    table = ["--labels", str(tmp_path / "table.csv"), "--patient-column", "who", "--json"]
    assert main(line(tmp_path, "0.000001", *table)) == 2
    printed = capsys.readouterr()
    assert "the test part would be empty" in printed.err
    assert not (tmp_path / "out" / "manifest.json").exists()
    answers = []
    for _ in range(2):
        assert main(line(tmp_path, "0.5", *table)) == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[-1]))

    assert [one["already_published"] for one in answers] == [False, True]
    assert answers[0]["parts"] == answers[1]["parts"]
    assert answers[0]["patients"] == answers[1]["patients"] == answers[0]["parts"]
    assert sum(answers[0]["parts"].values()) == 6
    assert answers[0]["notes"][0] == answers[1]["notes"][0]
    assert answers[0]["notes"][0].startswith("split: train ")


def test_an_empty_part_of_unknown_patients_is_refused_once_contents_are_known(tmp_path, capsys):
    """Nothing is published; the same line again says the same, and another place takes another share."""
    (tmp_path / "key").write_bytes(b"the secret key of this test")
    write(tmp_path, ["a", "b", "c"])
    for _ in range(2):
        assert main(line(tmp_path, "0.000001")) == 2
        printed = capsys.readouterr().err
        assert "the test part would be empty: with --test-fraction 1e-06 none of 3 samples is drawn for it" in printed
        assert "and another --out" in printed
        assert not (tmp_path / "out" / "manifest.json").exists()
    assert main(line(tmp_path, "0")) == 2
    assert "use another --out" in capsys.readouterr().err
