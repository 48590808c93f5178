"""Progress of a run, read from its folder: of this start, and of no other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossdim.foundation import progress
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.progress import Progress
from crossdim.training.engine.control import Request
from crossdim.training.launch.mailbox import DriverMailbox, Phase
from crossdim.training.launch.progress_bar import RunProgress, show_run_progress
from crossdim.training.launch.ray_driver import _show_phase
from crossdim.training.launch.waiting import Wait
from crossdim.training.launch.workers import Workers
from crossdim.training.run_dir.layout import PROGRESS
from crossdim.training.run_dir.metrics import read_progress


@dataclass
class Clock:
    """Stands for the monotonic clock; a test moves it."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


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
    for done, again in ((20, "; steps 21 to 26 will be repeated"), (25, "; step 26 will be repeated"), (26, "")):
        with show_run_progress(run, done, 40, quiet=False):
            pass
        assert capsys.readouterr().err == f"pretrain: resuming from step {done} of 40{again}\n"
    with show_run_progress(run, 20, 40, quiet=True) as shown:
        shown.stage("starting Ray")
    assert capsys.readouterr().err == ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


SHORT = Wait(sentence="needs 2 workers with 1 GPU each; the cluster has 0 free of 0", is_short=True)
ENOUGH = Wait(sentence="needs 2 workers with 1 GPU each; the cluster has 2 free of 2", is_short=False)


def test_waiting_is_said_only_when_it_lasts(tmp_path: Path, clock: Clock) -> None:
    """Ray reserves what workers need some seconds before they are there: meanwhile nothing is free."""
    bar = Progress("pretrain", "step", 4, 0, None)
    run = RunProgress(Bucket(str(tmp_path)), bar, None)
    wait: Wait | None = SHORT
    run.stage("starting 2 workers", lambda: wait)
    clock.now += 15
    run.update()
    assert bar.describe() == "starting 2 workers … 15 s"
    clock.now += 15
    run.update()
    clock.now += 10
    run.update()
    assert bar.describe() == f"waiting 40 s: {SHORT.sentence}"
    wait = None
    run.update()
    assert bar.describe() == "starting 2 workers … 40 s"


def test_a_run_that_waits_does_so_until_all_is_reserved(tmp_path: Path, clock: Clock) -> None:
    """Others take and return GPUs: the line changed between two sentences every second."""
    bar = Progress("pretrain", "step", 4, 0, None)
    run = RunProgress(Bucket(str(tmp_path)), bar, None)
    found: list[Wait | None] = [ENOUGH, SHORT, ENOUGH, SHORT, None]
    run.stage("starting 2 workers", lambda: found.pop(0))
    clock.now += 30
    told = []
    while found:
        run.update()
        told.append(bar.describe())
    stage, short, enough = "starting 2 workers … 30 s", f"waiting 30 s: {SHORT.sentence}", f"waiting 30 s: {ENOUGH.sentence}"
    assert told == [stage, short, enough, short, stage]


def test_workers_that_come_while_ray_is_asked_win(tmp_path: Path, clock: Clock) -> None:
    """Workers were there, and the line said for a second that they were waited for."""
    bar = Progress("pretrain", "step", 4, 0, None)
    run = RunProgress(Bucket(str(tmp_path)), bar, None)

    def find_wait() -> Wait:
        run.stage("preparing the first step")
        return SHORT

    run.stage("starting 2 workers", find_wait)
    clock.now += 30
    run.update()
    assert bar.describe() == "preparing the first step"
    clock.now += 30
    run.update()
    assert bar.describe() == "preparing the first step … 30 s"


def test_a_late_note_of_workers_that_have_ended_does_not_end_the_stage(tmp_path: Path, clock: Clock) -> None:
    run = Bucket(str(tmp_path))
    bar = Progress("pretrain", "step", 40, 0, None)
    shown = RunProgress(run, bar, None)
    shown.stage("starting 2 workers", lambda: None)
    _note(run, 26)
    shown.update()
    assert bar.describe() == "starting 2 workers"
    shown.stage("preparing the first step")
    shown.update()
    assert bar.describe() == "preparing the first step"
    _note(run, 21, time_s=2.0)
    shown.update()
    assert bar.describe().startswith("21/40 steps")


def test_a_start_shows_its_stages_whatever_the_start_before_reached(tmp_path: Path) -> None:
    """It was killed after its last step and before the last checkpoint: nothing was shown until the first step."""
    run = Bucket(str(tmp_path))
    _note(run, 4)
    bar = Progress("pretrain", "step", 4, 2, None)
    RunProgress(run, bar, read_progress(run)).stage("starting 2 workers", lambda: None)
    assert bar.describe() == "starting 2 workers"


def test_workers_that_end_with_the_run_are_not_started_again(tmp_path: Path) -> None:
    """The controller tears workers down, for another start of them or for good; the mailbox knows which."""
    bar, mailbox = Progress("pretrain", "step", 4, 0, None), DriverMailbox()
    shown = RunProgress(Bucket(str(tmp_path)), bar, None)
    workers = Workers(least=2, most=2, use_gpu=False, address=None, quiet=True)
    told = []
    for phase in (Phase.STARTING, Phase.TRAINING, Phase.STARTING, Phase.TRAINING, Phase.ENDING, Phase.STARTING):
        mailbox.set_phase(phase)
        _show_phase(shown, workers, mailbox.put_request(Request.NOTHING))
        told.append(bar.describe())
    assert told == ["starting 2 workers", "preparing the first step"] * 2 + ["preparing the first step"] * 2
