"""Evaluation: probes that find what is there and nothing that is not, and a report that needs nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.evaluation.features import Labelled, compute_features
from crossdim.training.evaluation.probes import ProbeComparison, split_folds
from crossdim.training.layers.statistics import recompute_statistics
from crossdim.training.run_dir.async_checkpointer import AsyncCheckpointer
from tests.training.published import images, publish


def _data(count: int, patients: int, seed: int = 0) -> Labelled:
    labels = np.array([str(i % 2) for i in range(count)])
    names = np.array([f"p{i % patients}" for i in range(count)])
    return Labelled(
        name="d", presentation="superpatch", x_NC=np.zeros((count, 1, 1, 1, 1), np.float32), labels=labels, patients=names
    )


@pytest.mark.integration
def test_features_that_know_the_class_are_found_and_noise_is_not() -> None:
    data, rng = _data(60, 60), np.random.default_rng(0)
    knowing = (np.eye(2)[data.labels.astype(int)] + rng.normal(0, 0.05, (60, 2))).astype(np.float32)
    noise = [rng.normal(0, 1, (60, 2)).astype(np.float32) for _ in range(3)]
    for result in ProbeComparison(data, noise, 5).compare(knowing):
        assert result.trained > 0.95
        assert 0.3 < result.untrained < 0.7
        assert result.verdict == "above the untrained baselines"
    for result in ProbeComparison(data, noise[1:], 5).compare(noise[0]):
        assert result.verdict.startswith("inside the spread")


def test_a_fold_never_cuts_through_a_patient() -> None:
    data = _data(60, 15)
    for train, test in split_folds(data, 5):
        assert not set(data.patients[train]) & set(data.patients[test])


def test_a_class_with_one_patient_cannot_be_probed() -> None:
    with pytest.raises(RunError, match="2 patients in every class"):
        split_folds(_data(10, 1), 5)


def test_statistics_are_those_of_the_data_and_the_original_is_left_alone() -> None:
    module = nn.Sequential(nn.BatchNorm3d(1))
    module(torch.full((4, 1, 2, 2, 2), 100.0))  # what a run left behind
    before = float(module[0].running_mean)  # type: ignore[arg-type]
    x = torch.randn(20, 1, 4, 4, 4) * 3 + 5
    fresh = recompute_statistics(module, lambda copy: copy, x.split(10)).requires_grad_(False)
    assert float(fresh(x).mean()) == pytest.approx(0, abs=1e-3)
    assert float(fresh(x).std()) == pytest.approx(1, abs=2e-2)
    assert float(module[0].running_mean) == before  # type: ignore[arg-type]
    assert module.training


@pytest.mark.integration
def test_the_report_is_one_file_with_the_numbers_beside_their_counts(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    line = [
        "pretrain",
        "--recipe",
        "cdssl-p3d:tiny",
        "--data",
        image_data.url,
        volume_data.url,
        "--out",
        run,
        "--workers",
        "0",
        "--json",
    ]
    assert main([*line, "--steps", "3", "--set", "global_batch=8"]) == 0
    assert main(["evaluate", run, "--data", image_data.url, volume_data.url, "--baselines", "2", "--json"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "30 of 30 inputs of unknown patients" in page
    assert "20 of 20 inputs of unknown patients" in page
    assert page.count("data:image/png;base64,") > 20
    assert page.count("<svg") >= 5
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    results = json.loads((tmp_path / "run" / "evaluation.json").read_text())["results"]
    assert {(r["dataset"], r["probe"]) for r in results} == {(d, p) for d in ("flat", "solid") for p in ("knn", "linear")}


def test_a_run_without_a_checkpoint_cannot_be_evaluated(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path), "--data", image_data.url]) == 2
    assert "holds no checkpoint; pretrain it first" in capsys.readouterr().err


def test_features_do_not_depend_on_the_order_of_the_catalog_and_see_what_differs_along_it() -> None:
    """Sorted samples come in parts that are alike; batch-norm statistics must be those of all of them."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv3d(1, 4, 1), nn.BatchNorm3d(4))
    x = np.repeat(np.linspace(0, 10, 64, dtype=np.float32), 8).reshape(64, 1, 2, 2, 2)
    found = compute_features(encoder, x)
    assert found.std(axis=0) == pytest.approx(np.ones(4), abs=0.1)  # of all 64, not of 16 neighbours
    assert np.abs(np.diff(np.argsort(found[:, 0]))).max() == 1  # every row belongs to its input


@pytest.mark.parametrize("folds", ["1", "0", "-3", "many"])
def test_fewer_than_two_folds_are_wrong_use(folds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["evaluate", str(tmp_path)], ["study", "pseudo3d", "--recipe", "cdssl-p3d:tiny", "--out", str(tmp_path)]):
        with pytest.raises(SystemExit) as end:
            main([*line, "--data", str(tmp_path), "--folds", folds])
        assert end.value.code == 1
        assert f"{folds!r} is no number of folds: a cross-validation has 2 or more parts" in capsys.readouterr().err


@pytest.mark.integration
def test_what_the_reader_must_know_of_the_figures_is_said(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds that the patients do not allow, a run that is not finished, labels that are missing; a report keeps its figures."""
    run, unlabelled = str(tmp_path / "run"), Bucket(str(tmp_path / "unlabelled"))
    publish(unlabelled, [replace(sample, label=None) for sample in images(4)], "unlabelled")
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", image_data.url, "--out", run, "--workers", "0", "--json"]
    with monkeypatch.context() as patched:
        after_step = AsyncCheckpointer.after_step

        def cut(self: AsyncCheckpointer, record: StepRecord, request: Request) -> None:
            after_step(self, record, request)
            if record.step == 1:
                raise OSError("power cut")

        patched.setattr(AsyncCheckpointer, "after_step", cut)
        assert main([*line, "--steps", "4", "--set", "global_batch=8", "--checkpoint-every", "1"]) == 2
    evaluation = ["evaluate", run, "--baselines", "1", "--data"]
    capsys.readouterr()
    assert main([*evaluation, image_data.url, "--folds", "50"]) == 0
    message = capsys.readouterr().out
    assert "The run was not finished: these figures are of step 2 of 4." in message
    assert "flat: 15 folds were used, and not 50: its smallest class has 15 inputs." in message
    assert "The run was not finished: these figures are of step 2 of 4." in (tmp_path / "run/report.html").read_text()
    before = (tmp_path / "run/report.html").read_bytes()
    assert main([*evaluation, unlabelled.url]) == 2
    message = capsys.readouterr().err
    assert "unlabelled has no labels and was not probed; prepare it again with --label folder" in message
    assert f"report.html, which has figures of {image_data.url}, is left as it is" in message
    assert (tmp_path / "run/report.html").read_bytes() == before
    (tmp_path / "run/evaluation.json").unlink()
    assert main([*evaluation, unlabelled.url]) == 0
    assert "unlabelled has no labels and was not probed" in capsys.readouterr().out


@pytest.mark.integration
def test_what_the_encoder_was_trained_on_is_said_and_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine patients of two images each, two of whom were held out, and six images of unknown patients, all held out."""
    samples = [
        replace(sample, patient=f"patient-{number // 2}" if number < 18 else None) for number, sample in enumerate(images(24))
    ]
    data, run = Bucket(str(tmp_path / "data")), str(tmp_path / "run")
    publish(data, samples, "flat", splits=["train"] * 14 + ["test"] * 10)
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", data.url, "--out", run, "--workers", "0", "--json"]
    assert main([*line, "--steps", "1", "--set", "global_batch=8"]) == 0
    evaluation = ["evaluate", run, "--baselines", "1", "--data", data.url]
    capsys.readouterr()
    assert main(evaluation) == 0
    told = capsys.readouterr().out
    assert "24 samples of 9 patients and 6 inputs of unknown patients" in told
    assert "flat: the encoder was trained on 14 of the 24 samples; --split test probes the other samples only." in told
    assert main([*evaluation, "--split", "test"]) == 0
    told = capsys.readouterr().out
    assert "10 samples of 2 patients and 6 inputs of unknown patients" in told
    assert "the encoder was trained" not in told
    assert main([*evaluation, "--split", "train"]) == 0
    assert "flat: the encoder was trained on 14 of the 14 samples." in capsys.readouterr().out
    assert main(["evaluate", run, "--data", data.url, data.url]) == 1
    assert "twice; name each dataset once" in capsys.readouterr().err


@pytest.mark.integration
def test_an_encoder_is_not_probed_with_the_labels_that_it_has_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By default held-out samples are; where there are none, nothing is probed, unless that is asked for."""
    half, whole, run = Bucket(str(tmp_path / "half")), Bucket(str(tmp_path / "whole")), str(tmp_path / "run")
    publish(half, images(32), "half", splits=["train"] * 16 + ["test"] * 16)
    publish(whole, images(16, seed=1), "whole")
    line = ["pretrain", "--recipe", "cross-d-supervised:tiny", "--data", half.url, whole.url, "--out", run, "--workers", "0"]
    assert main([*line, "--steps", "1", "--set", "global_batch=8"]) == 0
    evaluation = ["evaluate", run, "--baselines", "1", "--data"]
    capsys.readouterr()
    assert main([*evaluation, half.url, whole.url]) == 0
    told = capsys.readouterr().out
    assert "half (pseudo3d), knn, 16 samples of 16 inputs" in told
    assert "whole was not probed: the encoder was trained with its labels" in told
    report, card = ((tmp_path / "run" / name).read_text() for name in ("report.html", "card.md"))
    assert "whole was not probed" in report
    assert "whole was not probed" in card
    assert main([*evaluation, whole.url, "--split", "all"]) == 0
    told = capsys.readouterr().out
    assert "whole: the encoder was trained on 16 of the 16 samples, and on their labels." in told
    assert f"these replace the figures of {half.url}, {whole.url} of the report" in told


def _evaluate_on(trained: Bucket, other: Bucket, run: str, capsys: pytest.CaptureFixture[str]) -> str:
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", trained.url, "--out", run, "--workers", "0", "--json"]
    assert main([*line, "--steps", "1", "--set", "global_batch=8"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--data", trained.url, other.url, "--baselines", "1"]) == 0
    return capsys.readouterr().out


@pytest.mark.integration
def test_datasets_of_one_name_are_told_apart_by_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The default name is that of the recipe; what is trained on is known by content and place, and not by a name."""
    mine, other = Bucket(str(tmp_path / "mine")), Bucket(str(tmp_path / "other"))
    publish(mine, images(16), "xray-pseudo3d-tiny")
    publish(other, images(16, seed=5), "xray-pseudo3d-tiny")
    told = _evaluate_on(mine, other, str(tmp_path / "run"), capsys)
    assert f"xray-pseudo3d-tiny in {mine.url}: the encoder was trained on 16 of the 16 samples." in told
    assert f"xray-pseudo3d-tiny in {other.url} (pseudo3d), knn, 16 samples" in told
    assert f"{other.url}: the encoder was trained" not in told
    [first, *_] = [line for line in (tmp_path / "run" / "report.html").read_text().splitlines() if "Evaluated:" in line]
    assert mine.url in first
    assert other.url in first
