"""A run that asks for GPUs where there are none says so at once; where machines may still be joining it waits, and says that."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import UsageError
from crossdim.training.launch.gpus import check_gpus


@pytest.mark.parametrize(
    ("least", "most", "wanted"),
    [(1, 1, "1 worker with 1 GPU"), (4, 4, "4 workers with 1 GPU each"), (2, 16, "2 to 16 workers with 1 GPU each")],
)
def test_no_gpu_at_all_is_refused_with_what_was_asked_for(least: int, most: int, wanted: str) -> None:
    with pytest.raises(UsageError, match=rf"the cluster has 0 GPUs; --gpu needs {wanted}: leave --gpu out"):
        check_gpus(0, least, most, "the cluster", may_join=True)


def test_too_few_gpus_are_waited_for_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Machines of a cluster join one after the other."""
    with caplog.at_level(logging.WARNING):
        check_gpus(2, 2, 16, "the cluster", may_join=True)
        assert caplog.text == ""
        check_gpus(1, 2, 16, "the cluster", may_join=True)
    assert "the cluster has 1 GPU; --gpu needs 2 to 16 workers with 1 GPU each: waiting for more to join" in caplog.text


def test_too_few_gpus_of_one_machine_are_refused() -> None:
    """None will ever join it: the run waited for ever."""
    check_gpus(2, 2, 16, "this machine", may_join=False)
    with pytest.raises(
        UsageError, match="this machine has 1 GPU; --gpu needs 2 workers with 1 GPU each: lower --workers to 1, or"
    ):
        check_gpus(1, 2, 2, "this machine", may_join=False)


@pytest.mark.parametrize("workers", ["2", "2:16"])
def test_a_run_on_one_machine_with_too_few_gpus_ends_before_ray_starts(
    workers: str, image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    line = ["--recipe", "cdssl-p3d:tiny", "--data", image_data.url, "--out", str(tmp_path / "run")]
    assert main(["pretrain", *line, "--workers", workers, "--gpu"]) == 1
    assert capsys.readouterr().err.startswith("error: this machine has 1 GPU; --gpu needs 2 ")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("workers", ["0", "1", "2:16"])
def test_a_machine_without_a_gpu_is_one_sentence_at_once(
    workers: str, image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Ray is started and before the run's folder is made."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run, began = tmp_path / "run", time.monotonic()
    line = ["pretrain", "--recipe", "cdssl-p3d:tiny", "--data", image_data.url, "--out", str(run), "--workers", workers, "--gpu"]
    assert main(line) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: this machine has 0 GPUs; --gpu needs ")
    assert shown.count("\n") == 1
    assert not run.exists()
    assert time.monotonic() - began < 10
