"""The mistakes that everybody makes: each ends in one sentence with what is wrong and what to do, and the right exit code."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from tests.disks import small_disk
from tests.ports import free_port
from tests.system.test_extras import run_without
from tests.training.published import images, publish, superpatches

pytestmark = pytest.mark.integration
WRONG_USE, FAILED, INTERRUPTED = 1, 2, 130
PATIENCE_S = 120


class Mistake(NamedTuple):
    """A command with a mistake in it, its exit code, what the sentence says, and the next step that it names."""

    command: str
    code: int
    says: str
    remedy: str


class Lab:
    """What a lab has: images, a dataset of images and one of volumes, a run, and files that are none of these."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "png").mkdir()
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "png" / f"{number}.png")
        (root / "labels").write_text("path,finding\n0.png,well\n1.png,sick\n2.png,well\n3.png,sick\n")
        (root / "empty").mkdir()
        (root / "notes").mkdir()
        (root / "notes" / "plan.txt").write_text("to do")
        (root / "typo").write_text("recipe: cdssl-p3d:tiny\nworkrs: 0\n")
        publish(Bucket(str(root / "xr")), images(12), "flat")
        publish(Bucket(str(root / "ct")), superpatches(6), "solid")
        run = ["--recipe", "cdssl-p3d:tiny", "--data", str(root / "xr"), "--out", str(root / "run"), "--workers", "0"]
        assert main(["pretrain", *run, "--steps", "1", "--set", "global_batch=4", "--json"]) == 0
        shutil.copytree(root / "run", root / "runs" / "first")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


PREPARE = "prepare {png} --recipe xray-pseudo3d:tiny --out {new} --local"
PRETRAIN = "pretrain --recipe cdssl-p3d:tiny --data {xr} --out {new} --workers 0 --steps 1"
SUPERVISED = PRETRAIN.replace("cdssl-p3d", "cross-d-supervised") + ' --set method.classes=["a","b"]'
ON_RAY = PRETRAIN.replace("--workers 0", "--workers 1")
ENDPOINT = "--endpoint-url http://127.0.0.1:{port} --access-key k --secret-key s"
MISTAKES = {
    "a verb": Mistake("prepaer {png}", WRONG_USE, "unknown verb 'prepaer'", "did you mean prepare"),
    "an option": Mistake(f"{PREPARE} --test-fractoin 0.2", WRONG_USE, "--test-fractoin", "--help"),
    "a value": Mistake(f"{PREPARE} --test-fraction 1.5", WRONG_USE, "1.5", "0"),
    "a recipe": Mistake(PREPARE.replace("pseudo3d", "pseudo3"), WRONG_USE, "xray-pseudo3:tiny", "did you mean xray-pseudo3d"),
    "a setting": Mistake(f"{PRETRAIN} --set optimizer.lrr=1", WRONG_USE, "optimizer.lrr", "did you mean .*lr"),
    "a setting's value": Mistake(f"{PRETRAIN} --set global_batch=many", WRONG_USE, "global_batch", "int"),
    "a file of settings": Mistake("pretrain --config {typo} --data {xr} --out {new}", WRONG_USE, "workrs", "workers"),
    "a source": Mistake(PREPARE.replace("{png}", "{nowhere}"), FAILED, "nowhere does not exist", "exist"),
    "an empty source": Mistake(PREPARE.replace("{png}", "{empty}"), FAILED, "empty", "holds no file"),
    "a source of other files": Mistake(PREPARE.replace("{png}", "{notes}"), FAILED, "nothing to prepare", "reads"),
    "a column of labels": Mistake(f"{PREPARE} --labels {{labels}} --label-column findng", WRONG_USE, "findng", "finding"),
    "a place that is taken": Mistake(PREPARE.replace("{new}", "{notes}"), WRONG_USE, "no dataset of crossdim", "empty folder"),
    "a dataset that is none": Mistake(PRETRAIN.replace("{xr}", "{png}"), FAILED, "is not a published dataset", "Prepare it"),
    "another run's folder": Mistake(PRETRAIN.replace("{new}", "{run}") + " --set seed=3", FAILED, "seed", "another"),
    "more workers than samples": Mistake(PRETRAIN.replace("--workers 0", "--workers 64"), WRONG_USE, "64", "global_batch"),
    "no GPU": Mistake(f"{ON_RAY} --gpu", WRONG_USE, "GPU", "--gpu"),
    "other classes": Mistake(SUPERVISED, WRONG_USE, "no sample of the classes a, b", "its labels are"),
    "no run": Mistake("status {empty}", FAILED, "empty", "pretrain"),
    "no checkpoint": Mistake("evaluate {empty} --data {xr}", FAILED, "holds no checkpoint", "pretrain it first"),
    "nothing to show": Mistake("show {notes}", FAILED, "neither a published dataset", "name the --out"),
    "a scheme": Mistake("verify s3:/lab/ct", WRONG_USE, "s3:/lab/ct", "s3://lab/ct"),
    "a module": Mistake("prepare {png} --recipe our_lab.recipes:ct --out {new}", WRONG_USE, "our_lab", "there is no module"),
    "a study": Mistake("study for-arms --recipe cdssl-p3d:tiny --data {xr} --out {new}", WRONG_USE, "for-arms", "four-arms"),
    "an endpoint": Mistake(f"verify s3://lab/ct {ENDPOINT}", FAILED, "127.0.0.1", "--endpoint-url"),
    "prepare's recipe": Mistake(PRETRAIN.replace("cdssl-p3d:tiny", "ct-superpatches"), WRONG_USE, "a recipe of prepare", "cdssl"),
    "pretrain's recipe": Mistake("prepare {png} --recipe=maesil:tiny --out {new}", WRONG_USE, "of pretrain and study", "ct-sup"),
    "a folder of runs": Mistake("show {runs}", FAILED, "first .a run.", "crossdim show .*runs/first"),
    "a run as data": Mistake("evaluate {run} --data {run}", WRONG_USE, "run is a run, not a dataset", "trained on .*xr"),
    "a version": Mistake(f"{PRETRAIN} --data-version {{xr}}=2", WRONG_USE, "has no version 2", "there is version 1"),
    "a version of nothing": Mistake(f"{PRETRAIN} --data-version {{ct}}=1", WRONG_USE, "--data-version names", "name it as there"),
    "a cluster": Mistake(f"{ON_RAY} --ray-address 127.0.0.1:{{port}}", FAILED, "Ray cluster", "answer"),
}  # fmt: skip


def check(mistake: Mistake, code: int, err: str) -> None:
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == mistake.code, err
    assert len(said) == 1, err
    assert "Traceback" not in err
    for part in (mistake.says, mistake.remedy):
        assert re.search(part, err), f"{part!r} is not in: {err}"


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name: str, lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mistake = MISTAKES[name]

    class Places(dict[str, str]):
        def __missing__(self, key: str) -> str:
            return str(lab.root / key)

    words = [word.format_map(Places(new=str(tmp_path / "new"), port=str(free_port()))) for word in mistake.command.split()]
    try:
        code = main(words)
    except SystemExit as end:
        code = int(end.code or 0)
    check(mistake, code, capsys.readouterr().err)
    assert not list((tmp_path / "new").glob("*"))


def test_an_extra_that_is_missing(lab: Lab, tmp_path: Path) -> None:
    line = PREPARE.format(png=lab.root / "png", new=tmp_path / "new").replace("--local", "--no-local")
    done = run_without("ray", *line.split())
    check(Mistake(line, WRONG_USE, "prepare needs Ray", r"pip install 'crossdim\[ray\]'"), done.returncode, done.stderr)


def test_a_folder_without_permission(ordinary_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (ordinary_user / "png").mkdir()
    Image.new("L", (64, 64), 9).save(ordinary_user / "png" / "a.png")
    (ordinary_user / "out").mkdir()
    (ordinary_user / "out").chmod(0o500)
    line = PREPARE.format(png=ordinary_user / "png", new=ordinary_user / "out" / "xr")
    check(Mistake(line, FAILED, "[Pp]ermission|not allowed", "out"), main(line.split()), capsys.readouterr().err)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_disk_that_is_full(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", 64 * 1024):
        line = PRETRAIN.format(xr=lab.root / "xr", new=tmp_path / "disk" / "run")
        code = main(line.split())
    check(Mistake(line, FAILED, "no space is left", "disk"), code, capsys.readouterr().err)


def test_ctrl_c(lab: Lab, tmp_path: Path) -> None:
    line = PRETRAIN.format(xr=lab.root / "xr", new=tmp_path / "new").replace("--steps 1", "--steps 100000")
    command = [sys.executable, "-m", "crossdim", *line.split()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "new" / "progress.json").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        err = process.communicate(timeout=PATIENCE_S)[1]
    (said,) = [line for line in err.splitlines() if line.startswith("interrupted")]
    assert process.returncode == INTERRUPTED
    assert "the same command goes on from here" in said
    assert "Traceback" not in err
