"""``evaluate --checkpoints``: figures of a checkpoint are those of an evaluation of it alone, beside one set of baselines."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from crossdim import training
from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.evaluation import checkpoint_probes
from crossdim.training.evaluation.features import compute_features
from crossdim.training.run_dir.layout import CHECKPOINT_PROBES, EVALUATION
from crossdim.training.show.facts import read_facts
from tests.training.published import images, publish

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def image_data(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """Images of which most have a label by chance: probes of different networks differ."""
    bucket, rng = Bucket(str(tmp_path_factory.mktemp("data"))), np.random.default_rng(0)
    samples = [replace(one, label=str(rng.integers(2))) if number % 3 else one for number, one in enumerate(images(40))]
    publish(bucket, samples, "flat")
    return bucket


@pytest.fixture(scope="module")
def run(image_data: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of steps 2, 4 and 6."""
    run = tmp_path_factory.mktemp("runs") / "run"
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", image_data.url, "--out", str(run), "--workers", "0", "--json"]
    assert main([*line, "--steps", "6", "--set", "global_batch=8", "--checkpoint-every", "2", "--pictures-at", "none"]) == 0
    return run


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def evaluate(run: Path, data: Bucket, *more: str) -> int:
    return main(["evaluate", str(run), "--data", data.url, "--baselines", "2", *more])


def test_every_checkpoint_is_probed_beside_untrained_networks(
    copied: Path, image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(copied, image_data, "--checkpoints", "all") == 0
    printed = capsys.readouterr().out
    rows = json.loads((copied / CHECKPOINT_PROBES).read_text())["results"]
    assert {(row["step"], row["probe"]) for row in rows} == {(step, probe) for step in (2, 4, 6) for probe in ("knn", "linear")}
    assert len({(row["probe"], row["untrained"], row["untrained_spread"]) for row in rows}) == 2
    alone = Path(shutil.copytree(copied, tmp_path / "alone"))
    for step in (4, 6):  # so that the newest is that of step 2
        shutil.rmtree(alone / f"checkpoints/step-{step:08d}")
    assert evaluate(alone, image_data) == 0
    wanted = {one["probe"]: one["trained"] for one in json.loads((alone / EVALUATION).read_text())["results"]}
    assert {row["probe"]: row["trained"] for row in rows if row["step"] == 2} == wanted
    newest = {one["probe"]: one["trained"] for one in json.loads((copied / EVALUATION).read_text())["results"]}
    assert {row["probe"]: row["trained"] for row in rows if row["step"] == 6} == newest
    assert re.findall(r"^ +(untrained|\d+)  \d\.\d{3} ± \d\.\d{3}", printed, re.MULTILINE) == ["untrained", "2", "4", "6"] * 2
    page = (copied / "report.html").read_text()
    section = page.partition(">Probes of the checkpoints</h2>")[2].partition("<h2")[0]
    assert section.count("<svg") == 2
    assert section.count('class="level"') == section.count('class="band"') == 2
    assert section.count("<circle") == 6


def test_features_of_untrained_networks_are_computed_once(
    copied: Path, image_data: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[nn.Module] = []

    def count(encoder: nn.Module, *others: object) -> object:
        seen.append(encoder)
        return compute_features(encoder, *others)  # type: ignore[arg-type]

    for module in (training.evaluation, checkpoint_probes):
        monkeypatch.setattr(module, "compute_features", count)
    assert evaluate(copied, image_data, "--checkpoints", "all") == 0
    assert len(seen) == 2 + 3  # untrained ones, and checkpoints


def test_a_later_evaluation_of_the_newest_leaves_the_curves(copied: Path, image_data: Bucket) -> None:
    assert evaluate(copied, image_data, "--checkpoints", "2,100%") == 0
    assert evaluate(copied, image_data) == 0
    facts = read_facts(Bucket(str(copied)), 0.0)
    assert [one.step for one in facts.of_checkpoints] == [2, 2, 6, 6]
    assert "Probes of the checkpoints" in (copied / "report.html").read_text()


def test_the_summary_in_the_terminal_has_them(copied: Path, image_data: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(copied, image_data, "--checkpoints", "all", "--json") == 0
    rows = [one for one in json.loads(capsys.readouterr().out)["checkpoints"] if one["probe"] == "linear"]
    assert main(["show", str(copied)]) == 0
    values = ", ".join(f"{one['trained']:.3f} at step {one['step']}" for one in rows)
    assert f"checkpoints: flat, linear: {values}; untrained {rows[0]['untrained']:.3f}" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_kept_is_named(copied: Path, image_data: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(copied, image_data, "--checkpoints", "2,50%,5") == 1
    assert "checkpoints keeps 2, 4, 6, and not 3, 5; name some of these, or all" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_left_out_and_told(copied: Path, image_data: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    state = copied / "checkpoints/step-00000004/state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    assert evaluate(copied, image_data, "--checkpoints", "all") == 0
    assert "step-00000004 cannot be read and was left out: its bytes do not have the recorded sha256." in capsys.readouterr().out
    assert [one.step for one in read_facts(Bucket(str(copied)), 0.0).of_checkpoints] == [2, 2, 6, 6]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"results": 3}', b'{"results": [{"step": "x"}, {"step": 3}]}'])
def test_curves_that_are_damaged_are_left_out(run: Path, tmp_path: Path, damage: bytes) -> None:
    copied = Bucket(str(shutil.copytree(run, tmp_path / "run")))
    copied.put(CHECKPOINT_PROBES, damage)
    facts = read_facts(copied, 0.0)
    assert facts.of_checkpoints == []
    assert any(CHECKPOINT_PROBES in problem for problem in facts.problems)
