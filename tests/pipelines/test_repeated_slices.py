"""Files of a series that are stored twice: equal content counts once, however few slices there are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest

from crossdim.pipelines.cli import main
from tests.pipelines.corpora import blob, write_series

pytestmark = pytest.mark.usefixtures("without_ray")


def outcome_of(raw: Path, out: Path, capsys) -> dict:
    """What ``prepare --json`` says, with its exit code."""
    capsys.readouterr()
    recipe = ["--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16"]
    code = main(["prepare", str(raw), *recipe, "--out", str(out), "--source-names", "relative", "--json"])
    told = capsys.readouterr()
    return {"code": code, "err": told.err} | (json.loads(told.out.splitlines()[-1]) if told.out else {})


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
