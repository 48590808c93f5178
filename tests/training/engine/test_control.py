"""StopControl: what signals and other threads ask of a run is heard once, answered once, and never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.training.engine.control import SIGNALS, Request, StopControl
from crossdim.training.launch.process_control import PROCESS_CONTROL, save_in_this_process
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.run_dir.records import read_records

STEPS = 150
PATIENCE_S = 120.0


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGUSR1, Request.SAVE), (signal.SIGTERM, Request.STOP)])
def test_a_signal_to_the_main_thread_asks_once(number: signal.Signals, expected: Request) -> None:
    control = StopControl()
    with control.follow_requests():
        signal.raise_signal(number)
        assert control.take() is expected
        assert control.take() is Request.NOTHING


def test_who_asks_to_stop_asks_to_save_too() -> None:
    """In either order: a checkpoint that is asked for after the stop does not make it a checkpoint alone."""
    control = StopControl()
    for order in ((Request.SAVE, Request.STOP), (Request.STOP, Request.SAVE)):
        for what in order:
            control.request(what)
        assert control.take() is Request.STOP
        assert control.take() is Request.NOTHING


def test_the_second_sigterm_is_not_held_up() -> None:
    """Who asks twice does not want to wait: the second finds what was there before us. A save does not count as the first."""
    held_up: list[int] = []

    def theirs(number: int, frame: FrameType | None) -> None:
        held_up.append(number)

    before, control = signal.signal(signal.SIGTERM, theirs), StopControl()
    try:
        with control.follow_requests():
            for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM):
                signal.raise_signal(number)
            assert (control.take(), held_up) == (Request.STOP, [])
            signal.raise_signal(signal.SIGTERM)
            assert (control.take(), held_up) == (Request.NOTHING, [signal.SIGTERM])
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_are_put_back_also_when_training_fails() -> None:
    before, control = {number: signal.getsignal(number) for number in SIGNALS}, StopControl()

    def training() -> None:
        with control.follow_requests():
            assert all(signal.getsignal(number) is not before[number] for number in SIGNALS)
            raise RuntimeError("a step failed")

    with pytest.raises(RuntimeError, match="a step failed"):
        training()
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def test_a_thread_that_trains_leaves_signals_alone() -> None:
    """Ray trains in a thread, where Python refuses handlers; whoever has the main thread hears for it."""
    before, control = signal.getsignal(signal.SIGTERM), StopControl()

    def training() -> object:
        with control.follow_requests():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(training).result() is before


def _interrupted(work: Callable[[], object], code: object, at: int) -> bool:
    """Do ``work`` with a SIGTERM before the ``at``-th opcode of ``code``; whether there were so many."""
    seen = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal seen
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen += 1
            if seen == at:
                signal.raise_signal(signal.SIGTERM)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen >= at


@pytest.mark.parametrize("verb", ["take", "request"])
def test_a_signal_in_the_midst_of_a_request_is_not_lost(verb: str) -> None:
    """Handlers run between any two opcodes of the thread that trains: one between reading and clearing must still be heard."""
    at, there = 0, True
    while there:
        at += 1
        control = StopControl()
        with control.follow_requests():
            took: list[Request] = []
            work = {
                "take": lambda c=control, took=took: took.append(c.take()),
                "request": lambda c=control: c.request(Request.SAVE),
            }[verb]
            there = _interrupted(work, getattr(StopControl, verb).__code__, at)
            expected = Request.STOP if there else [Request.NOTHING, Request.SAVE][verb == "request"]
            assert max(*took, Request.NOTHING, control.take()) is expected, at
    assert at > 5


def _until(true: Callable[[], object]) -> None:
    """Look again and again until it is so."""
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit, "it did not come to be in time"
        time.sleep(0.01)


def test_a_save_from_another_thread_is_answered_by_the_step_that_was_saved() -> None:
    control = StopControl()
    with control.follow_requests(), ThreadPoolExecutor(1) as thread:
        control.confirm_saved(3)  # of before, and no answer
        answer = thread.submit(control.save, PATIENCE_S)
        _until(lambda: control.take() is Request.SAVE)
        assert not answer.done()
        control.confirm_saved(7)
        assert answer.result(PATIENCE_S) == 7
        assert control.take() is Request.NOTHING


def test_two_who_wait_are_answered_by_one_checkpoint() -> None:
    control = StopControl()
    asked = threading.Barrier(3)

    def save() -> int | None:
        asked.wait(PATIENCE_S)
        return control.save(PATIENCE_S)

    with control.follow_requests(), ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(save) for _ in range(2)]
        asked.wait(PATIENCE_S)
        _until(lambda: len(control._changed._waiters) == 2)  # type: ignore[attr-defined]
        assert control.take() is Request.SAVE
        control.confirm_saved(4)
        assert [answer.result(PATIENCE_S) for answer in answers] == [4, 4]
        assert control.take() is Request.NOTHING


def test_nobody_answers_where_nobody_trains() -> None:
    """At once, with all the patience in the world; and what was asked in vain is not asked of the next run."""
    assert save_in_this_process(3600.0) is None
    with PROCESS_CONTROL.follow_requests():
        assert PROCESS_CONTROL.take() is Request.NOTHING


def test_who_must_stop_before_training_stops_at_its_first_step() -> None:
    """A machine may be taken away while a worker still loads its checkpoint."""
    control = StopControl()
    control.request(Request.STOP)
    control.request(Request.SAVE)
    with control.follow_requests():
        assert control.take() is Request.STOP


def test_a_run_that_ends_meanwhile_answers_with_nothing() -> None:
    control, taken, over = StopControl(), threading.Event(), threading.Event()

    def training() -> None:
        with control.follow_requests():
            taken.set()
            assert over.wait(PATIENCE_S)

    with ThreadPoolExecutor(2) as threads:
        run = threads.submit(training)
        assert taken.wait(PATIENCE_S)
        answer = threads.submit(control.save, 3600.0)
        _until(lambda: control.take() is Request.SAVE)
        over.set()
        run.result(PATIENCE_S)
        assert answer.result(PATIENCE_S) is None


def test_no_answer_in_time_is_none() -> None:
    control = StopControl()
    with control.follow_requests():
        assert control.save(0.01) is None


def _line(run: Path, data: Bucket) -> list[str]:
    of_run = ["--recipe", "maesil:tiny", "--data", data.url, "--out", str(run), "--steps", str(STEPS)]
    return ["pretrain", *of_run, "--workers", "0", "--json", "--checkpoint-every", "1000"]


def _happened(run: Path) -> list[tuple[str, int]]:
    return [(event.kind, event.step) for event in list_events(Bucket(str(run)))]


@pytest.mark.integration
def test_a_real_run_saves_at_sigusr1_and_stops_at_sigterm(image_data: Bucket, tmp_path: Path) -> None:
    """No checkpoint is due before the end, so those that are there were asked for; and the losses know nothing of it."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [sys.executable, "-m", "training", *_line(run, image_data)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3], env=os.environ) as process:
        try:
            _until(lambda: read_records(Bucket(str(run)), "progress.json") or process.poll() is not None)
            process.send_signal(signal.SIGUSR1)
            _until(lambda: "checkpoint" in dict(_happened(run)) or process.poll() is not None)
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            error = process.stderr.read()
            assert process.wait(PATIENCE_S) == 2
        finally:
            process.kill()
    newest = max(step for kind, step in _happened(run) if kind == "checkpoint")
    assert error.strip().endswith(f"{run}: stopped as asked; step {newest} is saved; the same command goes on from here")
    assert len(error.strip().splitlines()) == 1
    (_, saved), (_, stopped) = _happened(run)[1:3]
    assert _happened(run) == [("start", 0), ("checkpoint", saved), ("checkpoint", stopped), ("stopped", stopped)]
    assert 0 < saved < stopped < STEPS
    assert main(["status", str(run), "--json"]) == 2
    assert main(_line(run, image_data)) == 0
    assert _happened(run)[4:] == [("resume", stopped), ("checkpoint", STEPS), ("end", STEPS)]
    assert main(_line(whole, image_data)) == 0
    found, expected = (
        [(record["step"], record["samples"], record["loss"]) for record in read_metrics(Bucket(str(folder)))]
        for folder in (run, whole)
    )
    assert found == expected
