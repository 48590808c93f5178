"""What ``show`` says of a dataset is what its rows say, counted apart; its pictures are its samples."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.git_state import format_git_states
from crossdim.foundation.page.render import escape_cell
from crossdim.pipelines.show.card import CARD, PROVENANCE
from crossdim.pipelines.show.galleries import choose_inputs, find_inside, read_unit
from crossdim.pipelines.show.page import PAGE, build_page
from crossdim.pipelines.show.planes import DROPPED_RGB, GRID_RGB, draw_grid_plane
from crossdim.pipelines.show.summary import read_tables, summarise
from crossdim.pipelines.show.text import format_summary
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.superpatch import SuperpatchGrid, cut
from tests.pipelines.corpora import write_images, write_volumes

pytestmark = pytest.mark.integration
VOLUMES = ("--recipe", "mixed-superpatches:tiny", "--set", "superpatch.side=16", "--source-names", "relative")


def prepare(source: Path, out: Path, *options: str) -> None:
    assert main(["prepare", str(source), *options, "--out", str(out), "--local", "--json"]) == 3


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "raw")
    prepare(folder / "raw", folder / "xr", "--recipe", "xray-pseudo3d:tiny", "--label", "folder", "--test-fraction", "0.3")
    return folder / "xr"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    write_volumes(folder / "raw")
    prepare(folder / "raw", folder / "ct", *VOLUMES)
    return folder / "ct"


@pytest.mark.parametrize("name", ["images", "volumes"])
def test_counts_are_those_of_the_rows(name: str, request: pytest.FixtureRequest) -> None:
    dataset: Path = request.getfixturevalue(name)
    rows = pq.read_table(dataset / "catalog").to_pylist()
    summary = summarise(read_tables(Bucket(str(dataset))))
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        labels[row["label"] or "without a label"][row["split"]] += 1
    assert summary.num_samples == len(rows)
    assert summary.num_inputs == len({row["source_uri"] for row in rows})
    assert summary.modalities == Counter(row["modality"] for row in rows)
    assert summary.labels == labels
    assert summary.num_patients == len({row["patient"] for row in rows})
    assert summary.largest_patient == max(Counter(row["patient"] for row in rows).values())
    for split in {row["split"] for row in rows}:
        inside = [row for row in rows if row["split"] == split]
        assert summary.splits[split]["samples"] == len(inside)
        found = summary.splits[split]
        assert found["patients"] + found["unknown_patients"] == len({row["patient"] for row in inside})
        assert found["unknown_patients"] == len({row["patient"] for row in inside if row["patient"] == row["source_sha256"][:16]})
    assert (summary.shared_patients, summary.shared_inputs) == (0, 0)
    quarantine = pq.read_table(dataset / "quarantine").to_pylist()
    assert {rule.rule: rule.num_inputs for rule in summary.quarantined} == Counter(row["rule"] for row in quarantine)
    assert sum(rule.num_files for rule in summary.quarantined) == summary.files["quarantined"]
    assert sum(rule.num_files for rule in summary.ignored) == summary.files["ignored"]


def test_what_is_in_two_splits_is_found(images: Path) -> None:
    tables = read_tables(Bucket(str(images)))
    twice = tables.catalog.set_column(tables.catalog.column_names.index("patient"), "patient", [["p"] * tables.catalog.num_rows])
    summary = summarise(type(tables)(**{name: getattr(tables, name) for name in tables.__slots__} | {"catalog": twice}))
    assert summary.shared_patients == 1
    assert "1 patient and 0 inputs are in more than one split" in format_summary(summary, "xr")


def test_the_text_names_counts_rules_and_reasons(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(images)]) == 0
    text = capsys.readouterr().out
    assert "12 samples of 12 inputs" in text
    assert "15 = 12 used, 2 quarantined, 1 ignored" in text
    assert re.search(r"truncated 1\n +well/cut\.png: ", text)
    assert main(["show", str(images / "quarantine")]) == 0
    alone = capsys.readouterr().out
    assert "truncated 1" in alone
    assert "samples" not in alone
    assert main(["show", str(images), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == 12


def test_a_page_is_one_file_of_the_dataset_alone(images: Path, volumes: Path, tmp_path: Path) -> None:
    for dataset in (images, volumes):
        page = (dataset / PAGE).read_text()
        assert not re.search(r"""(src|href)=["'](?!data:)""", page)
        assert page.count("data:image/png;base64,") >= 6
        assert "truncated" in page or "checksum" in page or "gzip" in page
        bucket = Bucket(str(dataset))
        assert build_page(bucket, read_tables(bucket)).decode() == page
    assert main(["show", str(images), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert page.replace(str(images), "DATASET") == (images / PAGE).read_text()
    assert str(images) not in (images / PAGE).read_text()
    assert main(["show", str(images / "quarantine"), "--html", str(tmp_path / "page.html")]) == 0  # over a page of ours
    alone = (tmp_path / "page.html").read_text()
    assert "cut.png" in alone
    assert alone.count("data:image/png") == 2  # the two files that were refused
    assert "<h2>Values" not in alone


@pytest.mark.parametrize("name", ["manifest.json", "catalog/page.html"])
def test_no_page_is_written_into_what_is_shown(name: str, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (images / "manifest.json").read_bytes()
    assert main(["show", str(images), "--html", str(images / name)]) == 1
    assert "where nothing may be written" in capsys.readouterr().err
    assert (images / "manifest.json").read_bytes() == before


def test_no_file_but_a_page_is_overwritten(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.html").write_text("<!doctype html><title>My thesis</title>")
    assert main(["show", str(images), "--html", str(tmp_path / "thesis.html")]) == 1
    assert "is no page of crossdim; name another file" in capsys.readouterr().err
    assert "My thesis" in (tmp_path / "thesis.html").read_text()


def test_a_file_is_no_dataset_and_says_so(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(images / "manifest.json")]) == 2
    assert "holds neither a published dataset" in capsys.readouterr().err


def test_a_name_that_is_too_long_is_wrong_use(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(images), "--html", str(tmp_path / f"{'a' * 300}.html")]) == 1
    assert "File name too long" in capsys.readouterr().err


def test_a_page_that_cannot_be_finished_leaves_the_one_before(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full after some bytes: no part of the new page is left."""
    page = tmp_path / "page.html"
    assert main(["show", str(images), "--html", str(page)]) == 0
    before = page.read_bytes()

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)  # which tells of a full disk after the bytes were taken
    assert main(["show", str(images), "--html", str(page)]) == 2
    assert "the page cannot be written: No space left" in capsys.readouterr().err
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]
    assert page.read_bytes() == before


def test_what_is_not_known_of_patients_is_not_claimed(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(images)]) == 0
    assert "patients  not known; each of 12 inputs counts as one" in capsys.readouterr().out
    page = (images / PAGE).read_text()
    assert "Of 12 inputs the patient is not known: a patient may be in more than one split." in page
    assert "and no patient" not in page


def test_a_page_that_is_missing_is_made_again(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = images.parent / "raw"
    (images / PAGE).rename(tmp_path / PAGE)
    again = ["--recipe", "xray-pseudo3d:tiny", "--label", "folder", "--test-fraction", "0.3", "--out", str(images)]
    assert main(["prepare", str(source), *again]) == 3
    assert "is already published" in capsys.readouterr().out
    assert (images / PAGE).read_bytes() == (tmp_path / PAGE).read_bytes()


def test_filling_is_in_no_histogram(tmp_path: Path) -> None:
    """A bright volume of 5 slices in a box of 16: the filling around it is air, and is none of its voxels."""
    bright = nibabel.Nifti1Image(
        np.full((30, 30, 5), 700, np.int16) + np.arange(5, dtype=np.int16), np.diag([2.0, 2.0, 2.0, 1.0])
    )
    bright.header.set_xyzt_units("mm")
    (tmp_path / "raw").mkdir()
    nibabel.save(bright, tmp_path / "raw" / "a.nii")
    assert main(["prepare", str(tmp_path / "raw"), *VOLUMES, "--modality", "CT", "--out", str(tmp_path / "ct"), "--local"]) == 0
    bucket = Bucket(str(tmp_path / "ct"))
    (row,) = choose_inputs(read_tables(bucket).catalog, "CT")
    unit = read_unit(bucket, row)
    assert unit.min() == 0  # the filling
    assert unit[:, *find_inside(row)].min() > 0.8


def test_a_preparation_that_is_not_finished_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "_work").mkdir()
    (tmp_path / "_work" / "inputs.json").write_text("{}")
    assert main(["show", str(tmp_path)]) == 2
    assert "is not finished: crossdim status shows how far it is" in capsys.readouterr().err


def test_a_table_that_is_missing_names_the_next_step(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(images, tmp_path / "xr")
    shutil.rmtree(tmp_path / "xr" / "quarantine")
    assert main(["show", str(tmp_path / "xr")]) == 2
    assert "crossdim verify lists all that is wrong" in capsys.readouterr().err


def test_a_dataset_verifies_with_its_page_and_without(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "xr")
    assert main(["verify", str(tmp_path / "xr"), "--local", "--json"]) == 0
    (tmp_path / "xr" / PAGE).unlink()
    assert main(["verify", str(tmp_path / "xr"), "--local", "--json"]) == 0


def test_names_of_files_are_text_in_a_page(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    pixels = np.arange(2500, dtype=np.uint8).reshape(50, 50)
    for number in range(2):
        Image.fromarray(pixels + number).save(tmp_path / "raw" / f"<script>alert({number})<_script>.png")
    (tmp_path / "raw" / "<img src=x>.png").write_bytes(b"no picture")
    prepare(tmp_path / "raw", tmp_path / "xr", "--recipe", "xray-pseudo3d:tiny")
    page = (tmp_path / "xr" / PAGE).read_text()
    assert "<script>alert" not in page
    assert "<img src=x>" not in page
    assert "&lt;script&gt;alert(0)" in page


def test_a_sample_that_is_damaged_is_named(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(images, tmp_path / "xr")
    for shard in (tmp_path / "xr" / "images").iterdir():
        data = bytearray(shard.read_bytes())
        data[700:60_000:64] = bytes(len(data[700:60_000:64]))
        shard.write_bytes(data)
    bucket = Bucket(str(tmp_path / "xr"))
    with pytest.raises(StorageError, match="do not match their crc32c; run crossdim verify"):
        build_page(bucket, read_tables(bucket))
    assert main(["show", str(tmp_path / "xr"), "--html", str(tmp_path / "page.html")]) == 2
    assert not (tmp_path / "page.html").exists()


def test_a_plane_of_the_grid_is_the_plane_of_the_volume() -> None:
    """The volume is known: every pixel is its voxel, the grid's line, or the tint of a box that was left out."""
    rng = np.random.default_rng(0)
    shape, grid = (20, 30, 23), SuperpatchGrid(side=8)
    volume = rng.random(shape, np.float32)
    starts = grid.starts(shape)
    boxes = {start: cut(volume[None], start, 8, 0.0)[0] for start in starts[::2]}
    for axis in range(3):
        picture = draw_grid_plane(boxes, grid, shape, axis)
        data = base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))
        shown = np.asarray(Image.open(io.BytesIO(data))).astype(np.float32) / 255
        whole = np.take(volume, shape[axis] // 2, axis=axis)[::-1, ::-1]
        factor = shown.shape[0] // whole.shape[0]
        shown = shown[::factor, ::factor]
        near = np.abs(shown - whole[..., None]).max(axis=2) <= 1 / 255
        line, dropped = (np.abs(shown - colour).max(axis=2) <= 1 / 255 for colour in (GRID_RGB, DROPPED_RGB))
        assert (near | line | dropped).all()
        assert near.mean() > 0.2
        assert dropped.any()
        assert f"of {sum(s[axis] <= shape[axis] // 2 < s[axis] + 8 for s in starts)} boxes" in picture.caption


def test_values_of_a_page_are_those_that_a_network_sees(volumes: Path) -> None:
    bucket = Bucket(str(volumes))
    for row in read_tables(bucket).catalog.to_pylist():
        unit = read_unit(bucket, row)
        assert unit.min() >= -1e-6
        assert unit.max() <= 1 + 1e-6


def test_a_card_says_what_is_recorded_and_leaves_the_rest_to_a_person(images: Path) -> None:
    card = (images / CARD).read_text()
    assert "| samples | 12 of 12 inputs" in card
    assert "| refused | truncated | 1 |" in card
    assert card.count("**to be filled in**") == 8
    assert read_tables(Bucket(str(images))).manifest.digest in card


def test_the_command_is_recorded_without_names_of_sources(tmp_path: Path) -> None:
    """A folder may be called after a patient."""
    folder = tmp_path / "Doe^John"
    write_images(folder / "raw")
    (folder / "labels.csv").write_text("path,finding\n" + "".join(f"sick/p{n:03d}.png,a\n" for n in (0, 3, 6, 9)))
    line = ["prepare", str(folder / "raw"), "--recipe", "xray-pseudo3d:tiny", f"--labels={folder / 'labels.csv'}"]
    more = ["--label-column", "finding", "--out", str(tmp_path / "xr"), "--local", "--source-names", "hashed"]
    done = subprocess.run([sys.executable, "-m", "crossdim", *line, *more], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    recorded = json.loads((tmp_path / "xr" / PROVENANCE).read_text())
    assert recorded["command"].startswith(
        "crossdim prepare SRC --recipe xray-pseudo3d:tiny --labels=LABELS --label-column finding"
    )
    assert recorded["started"] <= recorded["ended"]
    assert f"| code | {format_git_states(recorded['git'])} |" in (tmp_path / "xr" / CARD).read_text()
    for path in (tmp_path / "xr").rglob("*"):
        assert path.is_dir() or b"Doe^John" not in path.read_bytes()


def test_control_characters_of_labels_reach_neither_page_nor_card(tmp_path: Path) -> None:
    """A terminal that shows the card would obey them."""
    write_images(tmp_path / "src")
    folder = tmp_path / "src" / "\x1b[31mred\x07\u202e"
    folder.mkdir()
    for picture in sorted((tmp_path / "src").rglob("*.png"))[:2]:
        picture.rename(folder / picture.name)
    line = ["prepare", str(tmp_path / "src"), "--recipe", "xray-pseudo3d:tiny", "--label", "folder", "--local"]
    assert main([*line, "--out", str(tmp_path / "out")]) in (0, 3)
    for name in (CARD, PAGE):
        text = (tmp_path / "out" / name).read_text()
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "x1b" in (tmp_path / "out" / CARD).read_text()


def test_texts_of_a_card_are_no_markup() -> None:
    assert escape_cell("a|b\n<img src=x> `c` [d](e)") == r"a\|b \<img src=x\> \`c\` \[d\](e)"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["{out}/nothing"], 2, "holds neither a published dataset (manifest.json) nor a run (config.json)"),
        (["{out}", "--html", "a.html", "--serve"], 1, "choose one"),
        (["{out}", "--serve", "70000"], 1, "takes a port, 0 to 65535"),
        (["{out}", "--html", "/no/such/folder.html"], 2, "the page cannot be written: No such file or directory"),
    ],
)
def test_wrong_use_is_one_sentence(
    options: list[str], code: int, message: str, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["show", *(option.format(out=images) for option in options)])
    except SystemExit as end:
        found = int(end.code or 0)
    assert found == code
    assert message in capsys.readouterr().err
