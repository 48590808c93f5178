"""W&B without a network and MLflow with a folder, really used: what they have of a run is what the run has, each step once."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.layout import EVALUATION, tracker_path
from crossdim.training.run_dir.metrics import read_metrics

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("trackers"),  # each package is imported once
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
SECRET = "wJalrXUtnFEMI/K7MDENG"
#: Of a file of records as W&B writes it, the log format of LevelDB after 7 bytes: blocks of this size.
BLOCK = 32768


def _pretrain(run: Path, data: Bucket, tracker: str, *more: str) -> int:
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", data.url, "--out", str(run), "--workers", "0", "--json"]
    line += ["--checkpoint-every", "2", "--steps", "5", "--secret-key", SECRET, "--access-key", "AKIA"]
    return main([*line, "--track", tracker, *more])


def _evaluate(run: Path, data: Bucket) -> dict[str, Any]:
    assert main(["evaluate", str(run), "--data", data.url, "--baselines", "1", "--json"]) == 0
    document = json.loads((run / EVALUATION).read_text())
    assert isinstance(document, dict)
    return document


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlflow").as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return str(tmp_path / "mlflow")


@pytest.fixture
def wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B reads its variables once in a process."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb.teardown()
    yield
    wandb.teardown()


def test_mlflow_has_the_numbers_of_the_run_each_step_once(image_data: Bucket, tmp_path: Path, mlflow_store: str) -> None:
    from mlflow.tracking import MlflowClient

    run = tmp_path / "run"
    assert _pretrain(run, image_data, "mlflow") == 0
    document = _evaluate(run, image_data)
    identifier = json.loads((run / tracker_path("mlflow")).read_text())["identifier"]
    client = MlflowClient()
    found = client.get_run(identifier)
    records = read_metrics(Bucket(str(run)))
    for name, wanted in (("loss", "loss"), ("rates/samples_per_s", "samples_per_s")):
        history = [(metric.step, metric.value) for metric in client.get_metric_history(identifier, name)]
        assert history == [(record["step"], record[wanted]) for record in records]
    probe = document["results"][0]
    name = f"probes/{probe['dataset']}/{probe['probe']}/trained"
    assert [(m.step, m.value) for m in client.get_metric_history(identifier, name)] == [(5, probe["trained"])]
    assert (found.data.params["optimizer.lr"], found.data.params["compute.precision"]) == ("0.003", "fp32")
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert "untrained network" in found.data.tags["verdict"]
    assert not _holding(Path(mlflow_store), SECRET)


def test_w_and_b_offline_has_the_numbers_of_the_run_each_step_once(
    image_data: Bucket, tmp_path: Path, wandb_offline: None
) -> None:
    run = tmp_path / "run"
    assert _pretrain(run, image_data, "wandb") == 0
    document = _evaluate(run, image_data)
    starts = [_read(path) for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)]
    assert len(starts) == 2  # of pretrain and of evaluate
    assert {record.run.run_id for records in starts for record in records if record.HasField("run")} == {
        json.loads((run / tracker_path("wandb")).read_text())["identifier"]
    }
    rows = [_row(record) for records in starts for record in records if record.HasField("history")]
    metrics = read_metrics(Bucket(str(run)))
    assert [(row["step"], row["loss"], row["rates/samples_per_s"]) for row in rows[:-1]] == [
        (record["step"], record["loss"], record["samples_per_s"]) for record in metrics
    ]
    probe = document["results"][0]
    assert (rows[-1]["step"], rows[-1][f"probes/{probe['dataset']}/{probe['probe']}/trained"]) == (5, probe["trained"])
    settings = {item.key: item.value_json for record in starts[0] for item in record.run.config.update}
    assert (settings["optimizer.lr"], settings["compute.precision"]) == ("0.003", '"fp32"')
    assert "untrained network" in str(starts[1])


def test_w_and_b_does_not_record_the_command_line(tmp_path: Path) -> None:
    """By itself it does, with the keys that stand in it."""
    script = tmp_path / "track.py"
    script.write_text(
        "from crossdim.training.trackers.base import TrackedRun\n"
        "from crossdim.training.trackers.wandb_tracker import WandbTracker\n"
        "tracker = WandbTracker(TrackedRun(name='run', where='runs/run', settings={'seed': 1}), None)\n"
        "tracker.log_steps([(0, {'loss': 1.0})])\n"
        "tracker.close('finished')\n"
    )
    found = os.environ | {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path)}
    line = [sys.executable, str(script), "pretrain", "--secret-key", SECRET]
    subprocess.run(line, env=found, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert not _holding(tmp_path, SECRET)


def test_a_server_that_is_not_there_is_one_warning_and_no_more(
    image_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{SECRET[:9]}@127.0.0.1:{free_port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert _pretrain(tmp_path / "run", image_data, "mlflow") == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "MLflow gets nothing more of this run, which goes on: MlflowException: " in said[0]
    assert SECRET[:9] not in said[0]
    assert len(read_metrics(Bucket(str(tmp_path / "run")))) == 5


def test_w_and_b_without_a_login_says_so_and_asks_nobody(
    image_data: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb.teardown()
    assert _pretrain(tmp_path / "run", image_data, "wandb") == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "this machine is not logged in; type wandb login, or set WANDB_MODE=offline" in said[0]
    wandb.teardown()


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _holding(folder: Path, text: str) -> list[Path]:
    """Files below a folder that hold a text."""
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def _read(path: Path) -> list[Any]:
    """Records of a file of W&B."""
    from wandb.proto import wandb_internal_pb2

    return [wandb_internal_pb2.Record.FromString(record) for record in _split(path.read_bytes())]


def _split(data: bytes) -> Iterator[bytes]:
    """Records of the log format of LevelDB: checksum, length, whether whole (1), first (2), in between (3) or last (4)."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


def _row(record: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
