"""What a verb shows on standard error while it works: lines where nobody looks, a bar on a terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from crossdim.foundation import entry_point, pending_requests, progress
from crossdim.foundation.bars import write_lines
from crossdim.foundation.progress import LINE_EVERY_S, Progress, show_progress, track


@dataclass
class Clock:
    """Stands for the monotonic clock; a test moves it."""

    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _screen(stream: io.StringIO) -> list[str]:
    """The lines that a terminal shows after all that was written: a carriage return goes back, and what follows overwrites."""
    lines: list[list[str]] = [[]]
    column = 0
    for character in stream.getvalue():
        if character in "\r\n":
            column = 0
            lines += [[]] if character == "\n" else []
        else:
            lines[-1][column : column + 1] = character
            column += 1
    return ["".join(line).rstrip() for line in lines]


@pytest.fixture
def show_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Called in a test, makes a terminal of standard error: pytest puts its own there after fixtures."""

    def show() -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return show


def test_the_time_that_ray_takes_to_start_is_no_part_of_the_rate(clock: Clock) -> None:
    """27 s until the first of 4 steps of 1 s were shown as 27 s a step, and 1:21 left."""
    shown = Progress("pretrain", "step", 4, 0, io.StringIO())
    shown.stage("starting Ray")
    clock.now += 26
    assert shown.describe() == "starting Ray … 26 s"
    shown.reach(1)
    assert (shown.rate, shown.describe()) == (0.0, "1/4 steps (25%)")
    clock.now += 1
    shown.reach(2)
    assert shown.describe() == "2/4 steps (50%), 1.0 steps/s, 2 s left"


def test_without_a_terminal_there_is_a_plain_line_now_and_then(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress("prepare", "row", 400, 0, stream)
    shown.stage("starting workers")
    for _ in range(200):
        clock.now += 1
        shown.advance()
        shown.renew()
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["prepare: starting workers", "prepare: 1/400 rows (0%)"]
    assert len(lines) == 2 + 199 // LINE_EVERY_S
    assert lines[-1] == "prepare: 181/400 rows (45%), 1.0 rows/s, 3:39 left"
    assert not set("\r\x1b") & set(stream.getvalue())


def test_a_stage_that_lasts_is_told_again(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress("pretrain", "step", 10, 0, stream)
    for _ in range(65):
        shown.stage("starting 2 workers")
        clock.now += 1
    lines = stream.getvalue().splitlines()
    assert [line.partition(" … ")[2] for line in lines] == ["", "30 s", "60 s"]


def test_a_bar_on_a_terminal(clock: Clock) -> None:
    stream = Terminal()
    shown = Progress("pretrain", "step", 10, 4, stream)
    shown.stage("starting Ray")
    clock.now += 12
    shown.renew()
    assert _screen(stream) == ["pretrain: starting Ray … 12 s"]
    shown.reach(5, "loss 0.5")
    assert re.fullmatch(r"pretrain:  50%\|.*\| 5/10, loss 0.5", _screen(stream)[0])
    clock.now += 3
    shown.reach(6, "loss 0.4")
    assert _screen(stream)[0].endswith("| 6/10, 3.00 s/step, 12 s left, loss 0.4")
    shown.close()


def test_a_store_that_does_not_answer_is_told_instead_of_a_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when nothing else happens: threads that read ahead may wait while units are done."""
    monkeypatch.setattr(pending_requests, "time", clock)
    shown = Progress("pretrain", "step", 10, 0, None)
    for step in (1, 2, 3):
        clock.now += 2
        shown.reach(step)
    with pending_requests.note_request("s3://lab/ct/manifest.json"):
        clock.now += 9
        assert "waiting" not in shown.describe()
        clock.now += 3
        assert shown.describe().startswith("3/10 steps (30%), waiting 12 s for s3://lab/ct/manifest.json, ")
        assert "left" not in shown.describe()
        shown.reach(4)
        assert "waiting" not in shown.describe()
        shown.stage("saving")
        clock.now += 11
        assert shown.describe() == "saving … 11 s, waiting 23 s for s3://lab/ct/manifest.json"
    assert shown.describe() == "saving … 11 s"


def test_steps_that_are_done_again_take_the_bar_back(clock: Clock) -> None:
    shown = Progress("pretrain", "step", 100, 0, None)
    for step in (40, 50):
        clock.now += 1
        shown.reach(step)
    shown.reach(30)
    assert (shown.rate, shown.describe()) == (0.0, "30/100 steps (30%)")


def test_a_stage_in_which_a_verb_failed_is_not_left_on_the_screen(clock: Clock) -> None:
    stream = Terminal()
    shown = Progress("prepare", "", 0, 0, stream)
    shown.stage("starting Ray")
    shown.close()
    assert _screen(stream) == [""]


def test_what_is_logged_meanwhile_has_lines_of_its_own(show_on: Callable[[], Terminal]) -> None:
    """Lines were glued to the bar."""
    terminal = show_on()
    record = logging.LogRecord("crossdim", logging.WARNING, "", 0, "a warning", None, None)
    with show_progress("prepare", "row", 3) as shown:
        shown.advance()
        entry_point._Handler(terminal).emit(record)
        write_lines(["a line"])
        shown.advance(2)
    *lines, bar, _ = _screen(terminal)
    assert lines == ["a warning", "a line"]
    assert re.match(r"prepare: 100%\|.*\| 3/3", bar)


def test_items_are_counted_when_they_are_done(show_on: Callable[[], Terminal]) -> None:
    terminal = show_on()
    seen = [
        (item, _screen(terminal)[-1].rpartition("| ")[2].partition(",")[0]) for item in track("evaluate", "dataset", ["a", "b"])
    ]
    assert seen == [("a", "0/2"), ("b", "1/2")]
    assert "| 2/2" in _screen(terminal)[0]


def test_quiet_says_nothing(show_on: Callable[[], Terminal]) -> None:
    terminal = show_on()
    assert list(track("evaluate", "dataset", ["a", "b"], quiet=True)) == ["a", "b"]
    assert terminal.getvalue() == ""


def test_a_job_that_stalls_becomes_slower(clock: Clock) -> None:
    """Its time left stood still."""
    shown = Progress("prepare", "row", 20, 0, None)
    for _ in range(10):
        clock.now += 1
        shown.advance()
    clock.now += 1
    assert shown.describe() == "10/20 rows (50%), 1.0 rows/s, 10 s left"
    clock.now += 43
    assert shown.describe() == "10/20 rows (50%), 4.91 s/row, 49 s left"


def test_the_first_unit_counts_where_its_beginning_is_known(clock: Clock) -> None:
    shown = Progress("prepare", "row", 4, 0, None)
    shown.stage("preparing the first row", is_first_unit=True)
    clock.now += 5
    shown.advance()
    assert shown.describe() == "1/4 rows (25%), 5.00 s/row, 15 s left"


def test_a_bar_is_drawn_ten_times_a_second_at_most_and_once_more_at_the_end(clock: Clock) -> None:
    """Each of a thousand quick units wrote a line of escape codes, and waited for the terminal."""
    stream = Terminal()
    shown = Progress("label maps", "file", 1000, 0, stream)
    for _ in range(999):
        clock.now += 0.001
        shown.advance()
    shown.advance()
    drawn = stream.getvalue().count("\r")
    assert 8 <= drawn <= 13
    assert "1000/1000" not in _screen(stream)[0]
    shown.close()
    assert "| 1000/1000" in _screen(stream)[0]


def test_waiting_goes_on_from_the_seconds_of_its_stage_and_is_told_once(clock: Clock) -> None:
    """The seconds began anew at each change between the two, and each wrote a line."""
    stream = io.StringIO()
    shown = Progress("pretrain", "step", 10, 0, stream)
    shown.stage("starting 2 workers")
    clock.now += 20
    for _ in range(4):
        shown.wait("needs 2 workers with 1 GPU each; the cluster has 0 free of 0")
        clock.now += 2
        shown.wait("")
        clock.now += 2
    assert shown.describe() == "starting 2 workers … 36 s"
    assert stream.getvalue().splitlines() == [
        "pretrain: starting 2 workers",
        "pretrain: waiting 20 s: needs 2 workers with 1 GPU each; the cluster has 0 free of 0",
    ]
    shown.stage("preparing the first step")
    assert shown.describe() == "preparing the first step"


def _make_closed_stream() -> io.TextIOBase:
    stream = io.StringIO()
    stream.close()
    return stream


def _make_pipe_without_reader() -> io.TextIOBase:
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", buffering=1)


@pytest.mark.parametrize("make", [_make_closed_stream, _make_pipe_without_reader])
def test_a_standard_error_that_nobody_reads_stops_no_work(
    make: Callable[[], io.TextIOBase], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream := make())
    seen = []
    with show_progress("prepare", "row", 2) as shown:
        shown.stage("starting Ray")
        write_lines(["a line"])
        for item in track("evaluate", "dataset", ["a", "b"]):
            seen.append(item)
            clock.now += 60
            shown.advance()
    with contextlib.suppress(BrokenPipeError):  # of what is left in its buffer
        stream.close()
    assert (seen, shown.describe()) == (["a", "b"], "2/2 rows (100%), 60.00 s/row")


class BrokenTerminal(Terminal):
    """A terminal that is there when the bar is made, and cannot be written to later."""

    error: BaseException | None = None

    def write(self, text: str) -> int:
        if self.error:
            raise self.error
        return super().write(text)


def test_a_terminal_that_goes_away_stops_no_work(clock: Clock) -> None:
    stream = BrokenTerminal()
    shown = Progress("prepare", "row", 9, 0, stream)
    stream.error = BrokenPipeError(32, "Broken pipe")
    for _ in range(3):
        clock.now += 1
        shown.advance()
    stream.error = None
    drawn = stream.getvalue()
    shown.advance()
    shown.close()
    assert stream.getvalue() == drawn


def test_an_interrupt_while_a_bar_is_drawn_leaves_no_lock_taken(clock: Clock) -> None:
    """The main thread then waited for ever for the thread that renews the bar, which waited for the lock."""
    stream = BrokenTerminal()
    shown = Progress("prepare", "row", 9, 0, stream)
    stream.error = KeyboardInterrupt()
    clock.now += 1
    with pytest.raises(KeyboardInterrupt):
        shown.advance()
    stream.error = None
    clock.now += 1
    thread = threading.Thread(target=shown.renew, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    shown.close()


def test_rows_on_ray_that_end_together_are_no_rate(clock: Clock) -> None:
    """Two rows that ended within a millisecond were shown as 1000 rows/s."""
    shown = Progress("prepare", "row", 100, 0, None)
    shown.stage("preparing the first row")
    for wave in range(2):
        clock.now += 10
        for _ in range(4):
            clock.now += 0.001
            shown.advance()
        assert shown.rate == (0 if not wave else pytest.approx(0.4, rel=0.01))
