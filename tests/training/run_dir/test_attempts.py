"""Attempts of a run: each is recorded with its outcome, damaged ones are left out, and a store that refuses them stops no run."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError
from crossdim.training.run_dir.attempts import AttemptRecord, describe_attempt, list_attempts, read_attempt
from crossdim.training.run_dir.layout import attempt_path, is_in_layout, is_of_a_run
from crossdim.training.run_dir.records import Record

REPOSITORY = Path(__file__).parents[3]


def read_all(run: Path) -> list[Record]:
    bucket = Bucket(str(run))
    return [read_attempt(bucket, path) for path in list_attempts(bucket)]


def test_an_attempt_has_a_start_and_no_end_while_it_lasts(tmp_path: Path) -> None:
    with AttemptRecord(Bucket(str(tmp_path)), 7, {"command": "crossdim pretrain"}):
        (attempt,) = read_all(tmp_path)
        assert (attempt["step"], attempt["provenance"], "ended" in attempt) == (7, {"command": "crossdim pretrain"}, False)
        assert describe_attempt(attempt) == f"{attempt['started']} from step 7, no end is recorded"
    (attempt,) = read_all(tmp_path)
    assert attempt["outcome"] == "finished"
    assert datetime.fromisoformat(attempt["started"]) <= datetime.fromisoformat(attempt["ended"])
    assert describe_attempt(attempt) == f"{attempt['started']} from step 7 to {attempt['ended']}, finished"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RunError("the loss of step 3\nis not finite"), "failed: the loss of step 3 is not finite"),
        (RunError("s3://me:hunter2@lab/ct does not answer"), "failed: s3://***@lab/ct does not answer"),
        (MemoryError("no room"), "failed: MemoryError: no room"),
        (KeyboardInterrupt(), "interrupted by SIGINT"),
    ],
)
def test_how_an_attempt_ended(error: BaseException, outcome: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), AttemptRecord(Bucket(str(tmp_path)), 0):
        raise error
    (attempt,) = read_all(tmp_path)
    assert attempt["outcome"] == outcome


def test_attempts_are_of_the_layout_and_in_order(tmp_path: Path) -> None:
    path = attempt_path("2026-01-31T12:00:00+00:00", "0123abcd")
    assert path == "attempts/20260131T120000-0123abcd.json"
    assert is_in_layout(path)
    assert is_of_a_run(path)
    assert not any(map(is_in_layout, ("attempts/notes.json", "attempts/20260131T120000-0123abcd.json.old", "attempts")))
    later = attempt_path("2026-02-01T00:00:00+00:00", "00000000")
    for one in (later, path, "attempts/notes.json"):
        Bucket(str(tmp_path)).put(one, b"{}")
    assert list_attempts(Bucket(str(tmp_path))) == [path, later]


def test_a_damaged_attempt_is_said_to_be_unknown(tmp_path: Path) -> None:
    with AttemptRecord(Bucket(str(tmp_path)), 0):
        pass
    (path,) = tmp_path.glob("attempts/*")
    path.write_bytes(path.read_bytes().replace(b"finished", b"fonished"))
    assert read_all(tmp_path) == [{}]
    assert describe_attempt({}) == "at an unknown time from step unknown, no end is recorded"


def test_a_store_that_refuses_them_stops_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "attempts").write_text("a file where a folder belongs")
    with caplog.at_level(logging.WARNING), AttemptRecord(Bucket(str(tmp_path)), 0):
        pass
    assert "this attempt of the run is not recorded" in caplog.text


@pytest.mark.integration
def test_a_run_that_is_stopped_by_a_signal_says_so(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    line = ["pretrain", "--recipe", "maesil:tiny", "--data", image_data.url, "--out", str(run), "--workers", "0", "--json"]
    line += ["--steps", "2000", "--checkpoint-every", "1"]
    start, environment = [sys.executable, "-m", "crossdim", *line], os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(start, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(run.glob("checkpoints/*/hashes.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 2
    (attempt,) = read_all(run)
    assert (attempt["outcome"], attempt["step"]) == ("interrupted by SIGTERM", 0)
    assert attempt["provenance"]["command"].startswith("crossdim pretrain --recipe maesil:tiny")
    assert {"crossdim"} <= attempt["provenance"]["git"].keys()
    assert main(["status", str(run)]) == 2
    assert f"  attempts: 1, the last {describe_attempt(attempt)}" in capsys.readouterr().out.splitlines()
    assert main([*line, "--set", "steps=bad"]) == 1  # wrong use is no attempt
    assert len(read_all(run)) == 1
