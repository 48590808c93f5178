"""RereadReporter: samples that were read twice are told at once in the log, and counted in few events."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir import rereads
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.events import EventLog, list_events, read_event
from crossdim.training.run_dir.rereads import EVERY_S, RereadReporter


def _record(step: int) -> StepRecord:
    numbers = dict.fromkeys(("loss", "lr", "grad_norm", "wait_s", "step_s", "skew_s"), 0.0)
    return StepRecord(step=step, terms={}, monitors={}, counts={}, samples=0, voxels=0, slowest=0, **numbers)  # type: ignore[arg-type]


def test_events_count_what_was_reported_since_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At once the first time, then once a minute; before a checkpoint, a stop and the end in any case. None without a report."""
    run, clock = Bucket(str(tmp_path)), SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(rereads, "time", clock)
    opened = []

    def open_log() -> EventLog:
        opened.append(1)
        return EventLog(run, 2, "rank1")

    with contextlib.closing(BackgroundWriter()) as writer, caplog.at_level(logging.WARNING):
        reporter = RereadReporter(open_log, writer, steps=9)

        def step(number: int, *texts: str, request: Request = Request.NOTHING) -> list[tuple[int, object, object]]:
            for text in texts:
                reporter.report(text)
            reporter.after_step(_record(number), request)
            writer.finish()
            found = [read_event(run, event) for event in list_events(run)]
            return [(event["step"], event["samples"], event["text"]) for event in found]

        assert step(0) == []
        assert opened == []
        assert step(1, "a", "b") == (told := [(2, 2, "b")])
        clock.now = EVERY_S - 1
        assert step(2, "c") == told
        clock.now = EVERY_S
        assert step(3, "d") == (told := [*told, (4, 2, "d")])
        assert step(4, "e", request=Request.SAVE) == (told := [*told, (5, 1, "e")])
        assert step(8, "f") == [*told, (9, 1, "f")]
    assert [record.message for record in caplog.records] == list("abcdef")
