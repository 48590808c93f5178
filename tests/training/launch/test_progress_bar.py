"""Progress of a run, read from its folder: of this start, and of no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdim.foundation import progress
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.progress import Progress
from crossdim.training.launch import progress_bar
from crossdim.training.launch.progress_bar import RunProgress, show_run_progress
from crossdim.training.run_dir.layout import PROGRESS
from crossdim.training.run_dir.metrics import read_progress


def _note(run: Bucket, step: int, time_s: float = 1.0) -> None:
    document = {"step": step, "loss": 0.5, "step_s": 2.0, "wait_s": 0.5, "time_s": time_s}
    run.put(PROGRESS, json.dumps(document).encode())


def test_a_run_that_goes_on_begins_where_it_was_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar stood at the last step before the kill until that was reached again."""
    run = Bucket(str(tmp_path))
    _note(run, 26)
    with show_run_progress(run, 20, 40, quiet=False) as shown:
        shown.stage("starting Ray")
        shown.update()
        assert "26/40" not in capsys.readouterr().err
        _note(run, 21, time_s=2.0)
        shown.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["pretrain: 21/40 steps (52%), loss 0.5000, data-wait 25%"]


def test_what_is_done_again_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Bucket(str(tmp_path))
    with show_run_progress(run, 0, 40, quiet=False):
        pass
    assert capsys.readouterr().err == ""
    _note(run, 26)
    for done, again in ((20, "; steps 20 to 26 are done again"), (26, "")):
        with show_run_progress(run, done, 40, quiet=False):
            pass
        assert capsys.readouterr().err == f"pretrain: going on from step {done} of 40{again}\n"
    with show_run_progress(run, 20, 40, quiet=True) as shown:
        shown.stage("starting Ray")
    assert capsys.readouterr().err == ""


def test_waiting_is_said_only_when_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reserves what workers need some seconds before they are there: meanwhile nothing is free."""
    now = 100.0

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now

    monkeypatch.setattr(progress, "time", Clock)
    monkeypatch.setattr(progress_bar, "time", Clock)
    bar = Progress("pretrain", "step", 4, 0, None)
    run = RunProgress(Bucket(str(tmp_path)), bar, 4, None)
    wait: str | None = "waiting: wants 2 workers of 1 GPU; the cluster has 0 free of 0"
    run.stage("starting 2 workers", lambda: wait)
    now += 15
    run.update()
    assert bar.describe() == "starting 2 workers … 15 s"
    now += 15
    run.update()
    now += 10
    run.update()
    assert bar.describe() == f"{wait} … 10 s"
    wait = None
    run.update()
    assert bar.describe() == "starting 2 workers"


def test_workers_that_end_with_the_run_are_not_started_again(tmp_path: Path) -> None:
    run = Bucket(str(tmp_path))
    bar = Progress("pretrain", "step", 4, 0, None)
    shown = RunProgress(run, bar, 4, read_progress(run))
    _note(run, 4)
    shown.update()
    shown.stage("starting 2 workers")
    assert bar.describe().startswith("4/4 steps")
