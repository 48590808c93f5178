"""Shows on standard error how far a verb is: a bar on a terminal, and elsewhere a plain line now and then.

What happens before the first unit is done, such as starting Ray, is a stage with a name.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TextIO, TypeVar

from crossdim.foundation.bars import STREAM_ERRORS, Bar
from crossdim.foundation.pending_requests import find_oldest_request
from crossdim.foundation.rates import Rate, format_seconds
from crossdim.foundation.threads import repeat_in_thread

#: Seconds between lines where standard error is no terminal.
LINE_EVERY_S = 30.0
#: Seconds between drawings of a bar, however many units are done.
DRAW_EVERY_S = 0.1
#: Seconds between renewals of a bar in which nothing is done.
RENEW_EVERY_S = 1.0
#: Seconds without a unit and without an answer of a store, after which the wait is told.
SLOW_S = 10.0
_Item = TypeVar("_Item")
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class Progress:
    """How far one verb is. Its functions may be called from any thread.

    Args:
        verb: such as ``prepare``.
        unit: what is counted, in the singular.
        total: units at the end.
        done: units that an earlier start has done.
        stream: where it is shown; a terminal has a bar. None shows nothing, as does a stream that nobody reads any more.
    """

    def __init__(self, verb: str, unit: str, total: int, done: int, stream: TextIO | None) -> None:
        self._verb, self._unit, self._total, self._done = verb, unit, total, done
        now = time.monotonic()
        self._stream, self._lock = stream, threading.RLock()
        self._stage, self._stage_began, self._reason, self._has_waited = "", now, "", False
        self._rate, self._note, self._last_unit_at = Rate(now, done), "", now
        self._any_done, self._due, self._written = False, now, -1
        self._bar: Bar | None = None
        try:
            if stream and stream.isatty():
                self._bar = Bar(total=total, initial=done, desc=verb, file=stream, dynamic_ncols=True, bar_format=_BAR)
        except STREAM_ERRORS:
            self._be_quiet()

    def stage(self, text: str, *, is_first_unit: bool = False) -> None:
        """Name what is happening before the next unit is done, such as ``starting Ray``; the same name goes on.

        Args:
            text: the name.
            is_first_unit: whether the next unit begins with the stage, so that its time counts in the rate.
        """
        with self._lock:
            if text != self._stage:
                now = time.monotonic()
                self._stage, self._stage_began, self._reason, self._has_waited = text, now, "", False
                self._any_done, self._due = False, 0.0
                if is_first_unit:
                    self._rate.begin(now, self._done)
                else:
                    self._rate.forget()
        self.renew()

    def wait(self, reason: str) -> None:
        """Say that the stage waits, and why; with an empty reason, that it no longer does. Its seconds go on."""
        with self._lock:
            if reason and not self._has_waited:
                self._has_waited, self._due = True, 0.0
            self._reason = reason
        self.renew()

    @property
    def stage_s(self) -> float:
        """Seconds since the stage began."""
        return time.monotonic() - self._stage_began

    def reach(self, done: int, note: str = "") -> None:
        """Say how many units are done, from the first of all.

        Args:
            done: units; fewer than before if some are repeated.
            note: further figures, such as the loss.
        """
        with self._lock:
            if done == self._done and self._any_done:
                return
            now = time.monotonic()
            if not self._any_done:
                self._due = 0.0
            if done < self._done:  # it began again from before
                self._rate.begin(now, done)
            else:
                self._rate.add(now, done)
            self._stage, self._done, self._note, self._any_done, self._last_unit_at = "", done, note, True, now
        self.renew()

    def advance(self, units: int = 1) -> None:
        """Say that more units are done."""
        with self._lock:
            self.reach(self._done + units)

    def renew(self) -> None:
        """Show the present state, if a bar or a line is due."""
        with self._lock:
            now = time.monotonic()
            if not self._stream or now < self._due:
                return
            self._due = now + (DRAW_EVERY_S if self._bar else LINE_EVERY_S)
            try:
                self._show(self._stream)
            except STREAM_ERRORS:
                self._be_quiet()

    def _show(self, stream: TextIO) -> None:
        if self._bar is None:
            self._written = self._done
            stream.write(f"{self._verb}: {self.describe()}\n")
            stream.flush()
        else:
            self._fill(self._bar)
            self._bar.refresh()

    def _fill(self, bar: Bar) -> None:
        bar.bar_format = "{desc}" if self._stage else _BAR
        bar.set_description_str(f"{self._verb}: {self.describe()}" if self._stage else self._verb, refresh=False)
        bar.n = self._done
        bar.set_postfix_str(self._describe_rate(), refresh=False)

    def _be_quiet(self) -> None:
        """Show nothing from now on: whoever read it has left, and the work goes on."""
        if self._bar is not None:
            self._bar.disable = True
        self._stream = self._bar = None

    def describe(self) -> str:
        """The present state in words: the stage and its seconds, or units done, rate and time left."""
        if self._stage:
            seconds = self.stage_s
            if self._reason:
                return f"waiting {format_seconds(seconds)}: {self._reason}"
            stage = f"{self._stage} … {seconds:.0f} s" if seconds >= RENEW_EVERY_S else self._stage
            return ", ".join(filter(None, [stage, self._describe_wait(self._stage_began)]))
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        rate = self._describe_rate()
        return f"{self._done}/{self._total} {self._unit}s{share}{', ' if rate else ''}{rate}"

    def _describe_rate(self) -> str:
        rate, waiting = self.rate, self._describe_wait(self._last_unit_at)
        parts = [waiting] * bool(waiting)
        if rate:
            parts.append(f"{rate:.1f} {self._unit}s/s" if rate >= 1 else f"{1 / rate:.2f} s/{self._unit}")
            if self._done < self._total and not waiting:  # how long a store is silent, nobody knows
                parts.append(f"{format_seconds((self._total - self._done) / rate)} left")
        return ", ".join([*parts, *([self._note] if self._note else [])])

    @staticmethod
    def _describe_wait(since: float) -> str:
        """What a store has been asked for without an answer, if nothing else happens meanwhile; empty otherwise."""
        if time.monotonic() - since < SLOW_S or (pending := find_oldest_request()) is None or pending.waited_s < SLOW_S:
            return ""
        return f"waiting {format_seconds(pending.waited_s)} for {pending.place}"

    @property
    def rate(self) -> float:
        """Units a second over the last minute, up to now; 0 as long as it is not known."""
        return self._rate.measure(time.monotonic())

    def close(self) -> None:
        """Show the last state for good; a stage in which the verb ended is not left on the screen."""
        with self._lock:
            try:
                if self._bar is not None:
                    self._fill(self._bar)
                    self._bar.leave = self._any_done
                    self._bar.close()
                elif self._stream and self._any_done and self._done == self._total != self._written:
                    self._show(self._stream)
            except STREAM_ERRORS:
                self._be_quiet()


@contextlib.contextmanager
def show_progress(verb: str, unit: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress of a verb inside a ``with`` block, renewed by a thread.

    Args:
        verb: such as ``prepare``.
        unit: what is counted, in the singular.
        total: units at the end.
        done: units that an earlier start has done.
        quiet: whether to show nothing.

    Yields:
        What is to be told about stages and units.
    """
    if quiet:
        yield Progress(verb, unit, total, done, None)
        return
    progress = Progress(verb, unit, total, done, sys.stderr)
    try:
        with repeat_in_thread("progress", RENEW_EVERY_S, progress.renew):
            yield progress
    finally:
        progress.close()


@contextlib.contextmanager
def show_stage(verb: str, text: str, *, quiet: bool = False) -> Iterator[None]:
    """Show inside a ``with`` block what a verb is doing, and for how long.

    Args:
        verb: such as ``prepare``.
        text: such as ``starting Ray``.
        quiet: whether to show nothing.

    Yields:
        Nothing; what is shown ends with the block.
    """
    with show_progress(verb, "", 0, quiet=quiet) as progress:
        progress.stage(text)
        yield


def track(verb: str, unit: str, items: Sequence[_Item], *, quiet: bool = False) -> Iterator[_Item]:
    """Iterate over items and show how many are done.

    Args:
        verb: such as ``evaluate``.
        unit: what an item is.
        items: to iterate over.
        quiet: whether to show nothing.

    Yields:
        The items.
    """
    with show_progress(verb, unit, len(items), quiet=quiet) as progress:
        for item in items:
            yield item
            progress.advance()
