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
    [(1, 1, "1 worker of 1 GPU"), (4, 4, "4 workers of 1 GPU"), (2, 16, "2 to 16 workers of 1 GPU")],
)
def test_no_gpu_at_all_is_refused_with_what_was_asked_for(least: int, most: int, wanted: str) -> None:
    with pytest.raises(UsageError, match=rf"the cluster has 0 GPUs; --gpu wants {wanted}: leave --gpu out"):
        check_gpus(0, least, most, "the cluster")


def test_too_few_gpus_are_waited_for_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Machines of a cluster join one after the other."""
    with caplog.at_level(logging.WARNING):
        check_gpus(2, 2, 16, "the cluster")
        assert caplog.text == ""
        check_gpus(1, 2, 16, "the cluster")
    assert "the cluster has 1 GPUs; --gpu wants 2 to 16 workers of 1 GPU: waiting for more to join" in caplog.text


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
    assert shown.startswith("error: this machine has 0 GPUs; --gpu wants ")
    assert shown.count("\n") == 1
    assert not run.exists()
    assert time.monotonic() - began < 10
