"""Slices that cannot be read: within a series they make it uneven; at its ends nothing shows, so that it is noted and told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs.series_groups import LACKS_SLICES
from tests.pipelines.corpora import blob, write_series


def outcome_of(raw: Path, out: Path, capsys) -> tuple[dict, dict[str, str]]:
    """What ``prepare --json`` says, and the note of each sample by its source."""
    capsys.readouterr()
    recipe = ["--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16"]
    assert main(["prepare", str(raw), *recipe, "--out", str(out), "--source-names", "relative", "--json"]) in (0, 3)
    rows = pq.read_table(out / "catalog").to_pylist()
    notes = {row["source_uri"].split("#")[0]: row["note"] or "" for row in rows}
    return json.loads(capsys.readouterr().out.splitlines()[-1]), notes


def in_order(folder: Path) -> list[Path]:
    """The slices of :func:`write_series` from the first to the last."""
    return [folder / f"{(depth * 7) % 31:02d}.dcm" for depth in range(16)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pointer(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


@pytest.mark.parametrize("spoil", [cut, empty, pointer])
@pytest.mark.parametrize("spoilt", [slice(11, 16), slice(0, 2), slice(15, 16)])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.integration
def test_a_series_beside_slices_that_cannot_be_read_is_noted_and_told(spoil, spoilt, named, tmp_path, capsys):
    for name, seed in (("ends", 1), ("whole", 2)):
        write_series(tmp_path / "raw" / name, blob((16, 24, 24), seed), f"1.2.{seed}")
    for path in in_order(tmp_path / "raw" / "ends")[spoilt]:
        spoil(path)
    if not named:
        for path in (tmp_path / "raw" / "ends").iterdir():
            path.rename(path.with_suffix(""))
    answer, notes = outcome_of(tmp_path / "raw", tmp_path / "out", capsys)

    assert {name: LACKS_SLICES in note.split("; ") for name, note in notes.items()} == {"ends": True, "whole": False}
    assert f"look at 1 input: {LACKS_SLICES} (their note in the catalog)" in answer["notes"]


def test_where_each_slice_has_a_folder_of_its_own_the_folders_beside_it_count(tmp_path, capsys):
    for name, seed in (("ends", 1), ("whole", 2)):
        write_series(tmp_path / "raw" / name, blob((16, 24, 24), seed), f"1.2.{seed}")
        for number, path in enumerate(in_order(tmp_path / "raw" / name)):
            (path.parent / str(number)).mkdir()
            path.rename(path.parent / str(number) / "IM0")
    cut(tmp_path / "raw" / "ends" / "15" / "IM0")
    _, notes = outcome_of(tmp_path / "raw", tmp_path / "out", capsys)

    assert {name.split("/")[0]: LACKS_SLICES in note for name, note in notes.items()} == {"ends": True, "whole": False}


@pytest.mark.parametrize("other", ["picture.png", "volume.nii.gz", "._00.dcm", "notes.txt", "done"])
def test_other_files_that_cannot_be_read_are_no_slices(other, tmp_path, capsys):
    write_series(tmp_path / "raw" / "a", blob((16, 24, 24), 1), "1.2.1")
    plain, _ = outcome_of(tmp_path / "raw", tmp_path / "plain", capsys)
    shutil.rmtree(tmp_path / "plain")
    (tmp_path / "raw" / "a" / other).write_bytes(b"" if other == "done" else b"cut")
    answer, notes = outcome_of(tmp_path / "raw", tmp_path / "out", capsys)

    assert not any(notes.values())
    assert not any("look at" in note for note in answer["notes"])
    assert answer["samples"] == plain["samples"]
