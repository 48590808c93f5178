"""Another request at the place of a dataset: the options that differ are named with both values."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs import prepare
from crossdim.pipelines.jobs.differences import find_settings
from crossdim.pipelines.jobs.request import RequestDigests
from crossdim.pipelines.sources.listing import SourceFile
from tests.pipelines.corpora import write_images, write_volumes

IMAGES = ("--recipe", "xray-pseudo3d:tiny")


def line(folder: Path, *options: str, recipe: tuple[str, ...] = IMAGES) -> list[str]:
    return ["prepare", str(folder / "raw"), *recipe, "--out", str(folder / "out"), *options]


TABLE = ("--labels", "t.csv", "--label-column", "kind")
#: What a dataset was made with, what is asked for, and what is told.
CASES = [
    (["--test-fraction", "0.25"], ["--test-fraction", "0.3"], ["--test-fraction: 0.25 there, 0.3 here"]),
    (["--test-fraction", "0.25"], [], ["--test-fraction: 0.25 there, 0.0 here"]),
    (["--split-by", "file"], [], ["--split-by: file there, patient here"]),
    (["--name", "mine"], [], ["--name: mine there, xray-pseudo3d-tiny here"]),
    ([], ["--label", "folder"], ["--label folder: not given there, given here"]),
    (["--include-label-maps"], [], ["--include-label-maps: given there, not given here"]),
    (["--modality", "XR"], ["--modality", "CT"], ["--modality: XR there, CT here"]),
    (["--modality", "XR"], [], ["--modality: XR there, none here"]),
    ([], TABLE, ["--labels: none there, a table here"]),
    (["--burned-in", "refuse"], [], ["--burned-in: refuse there, keep here"]),
    (["--tilt", "refuse"], [], ["--tilt: refuse there, correct here"]),
    (["--gaps", "refuse"], [], ["--gaps: refuse there, longest here"]),
    (["--set", "fit.max_side=64"], [], ["--set fit.max_side: 64 there, 192 here"]),
    (["--set", "fit.max_side=64", "--name", "a", "--label", "folder"], ["--test-fraction", "0.1", "--name", "b"],
     ["--set fit.max_side: 64 there, 192 here", "--name: a there, b here", "--label folder: given there, not given here",
      "--test-fraction: 0.0 there, 0.1 here"]),
]  # fmt: skip


@pytest.mark.parametrize(("made", "asked", "messages"), CASES)
def test_options_that_differ_from_those_of_a_dataset_are_named_with_both_values(
    made, asked, messages, tmp_path, capsys, monkeypatch
):
    write_images(tmp_path / "raw")
    (tmp_path / "t.csv").write_text("path,kind\nwell,x\n")
    monkeypatch.chdir(tmp_path)
    assert main(line(tmp_path, *made)) == 3
    capsys.readouterr()
    assert main(line(tmp_path, *asked)) == 2
    said = capsys.readouterr().err

    assert "use another --out (" in said
    assert all(one in said for one in messages)
    assert said.count(" there, ") == len(messages)


def test_another_way_to_name_sources_is_named_where_names_are_hashed(tmp_path, capsys):
    write_volumes(tmp_path / "raw")
    recipe = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16")
    assert main(line(tmp_path, recipe=recipe)) == 3
    assert main(line(tmp_path, "--source-names", "relative", recipe=recipe)) == 2

    assert "with other options; use another --out (--source-names: by_format there, relative here)" in capsys.readouterr().err


def test_what_cannot_be_known_is_not_guessed(tmp_path, capsys, monkeypatch):
    """Another table, a fraction of many digits, other files."""
    write_images(tmp_path / "raw")
    (tmp_path / "t.csv").write_text("path,kind\nwell,x\n")
    monkeypatch.chdir(tmp_path)
    assert main(line(tmp_path, *TABLE, "--test-fraction", "0.123456")) == 3
    assert main(line(tmp_path)) == 2
    assert "with other options, or by another version of crossdim; use another --out\n" in capsys.readouterr().err
    (tmp_path / "raw" / "new.png").write_bytes((tmp_path / "raw" / "well" / "p001.png").read_bytes())
    assert main(line(tmp_path, "--name", "b")) == 2
    assert "made from 15 files, where there are 16 now" in capsys.readouterr().err


def test_options_of_an_unfinished_dataset_are_named_with_both_values(tmp_path, capsys, monkeypatch):
    write_images(tmp_path / "raw")
    begun = ["--set", "shard.max_samples=2", "--test-fraction", "0.25", "--label", "folder"]
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "run_each", lambda documents, work, **_: map(work, documents[:2]))
        assert main(line(tmp_path, *begun)) == 2
    capsys.readouterr()
    assert main(line(tmp_path, *begun[:2], "--test-fraction", "0.3")) == 2

    messages = "--label folder: given there, not given here; --test-fraction: 0.25 there, 0.3 here"
    assert f"start the command that it was begun with, or use another --out ({messages})" in capsys.readouterr().err


@pytest.mark.integration
def test_settings_of_a_dataset_of_very_many_files_are_found_in_seconds():
    files = [SourceFile(source=0, path=f"{n}", uri=f"a/folder/of/{n}", size=n) for n in range(300_000)]
    request = RequestDigests(files, None)
    now = {"split": {"test_fraction": 0.2, "by": "file"}, "modality": None, "labels": None, "source_names": "by_format"}
    made = request.digest_of({**now, "split": {"test_fraction": 0.07, "by": "patient"}, "modality": "CT"})
    start = time.monotonic()
    found = find_settings(now, lambda one: request.digest_of(one) == made)

    assert found == {**now, "split": {"test_fraction": 0.07, "by": "patient"}, "modality": "CT"}
    assert time.monotonic() - start < 5
