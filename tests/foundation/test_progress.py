"""What a verb shows on standard error while it works: lines where nobody looks, a bar on a terminal."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation import entry_point, progress
from crossdim.foundation.progress import LINE_EVERY_S, Progress, format_seconds, show_progress, track, write_lines


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


def test_the_rate_is_that_of_the_last_minute(clock: Clock) -> None:
    shown = Progress("prepare", "row", 1000, 0, None)
    for _ in range(100):
        clock.now += 10
        shown.advance()
    for _ in range(100):
        clock.now += 1
        shown.advance(2)
    assert shown.rate == pytest.approx(2, rel=0.1)


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
        shown.stage("waiting: wants 2 workers of 1 GPU; the cluster has 0 free of 0")
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
    seen = [(item, _screen(terminal)[-1].rpartition("| ")[2]) for item in track("evaluate", "dataset", ["a", "b"])]
    assert seen == [("a", "0/2"), ("b", "1/2")]
    assert "| 2/2" in _screen(terminal)[0]


def test_quiet_says_nothing(show_on: Callable[[], Terminal]) -> None:
    terminal = show_on()
    assert list(track("evaluate", "dataset", ["a", "b"], quiet=True)) == ["a", "b"]
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (7800, "2:10:00"), (172_800, "2 d 0 h"), (273_600, "3 d 4 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 50)), min_size=2, max_size=40))
def test_the_time_left_follows_from_the_rate(steps: list[tuple[float, int]]) -> None:
    """Oracle: units and seconds of the window, added up here."""
    clock, total = Clock(), sum(units for _, units in steps) + 10
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "time", clock)
        shown, times = Progress("prepare", "row", total, 0, None), []
        for seconds, units in steps:
            clock.now += seconds
            shown.advance(units)
            times.append((clock.now, units))
    while len(times) > 2 and clock.now - times[0][0] > progress.WINDOW_S:
        times.pop(0)
    assert shown.rate == pytest.approx(sum(units for _, units in times[1:]) / (clock.now - times[0][0]))
