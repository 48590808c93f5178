"""Shows on standard error how far a verb is: a bar on a terminal, and elsewhere a plain line now and then.

What happens before the first unit is done, such as starting Ray, is a stage with a name, and no part of the rate: that is
taken over the last minute.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

from tqdm import tqdm

#: Seconds over which the rate is taken.
WINDOW_S = 60.0
#: Seconds between lines where standard error is no terminal.
LINE_EVERY_S = 30.0
#: Seconds between renewals of a bar.
RENEW_EVERY_S = 1.0
_Item = TypeVar("_Item")
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class Progress:
    """How far one verb is. Its functions may be called from any thread.

    Args:
        verb: such as ``prepare``.
        unit: what is counted, in the singular.
        total: units at the end.
        done: units that an earlier start has done.
        stream: where it is shown; a terminal has a bar. None shows nothing.
    """

    def __init__(self, verb: str, unit: str, total: int, done: int, stream: TextIO | None) -> None:
        self._verb, self._unit, self._total, self._done = verb, unit, total, done
        self._stream, self._began, self._lock = stream, time.monotonic(), threading.RLock()
        self._stage, self._stage_began = "", self._began
        self._history: deque[tuple[float, int]] = deque()
        self._note, self._line_due, self._written = "", self._began, -1
        self._bar: tqdm[None] | None = None
        if stream and stream.isatty():
            self._bar = tqdm(total=total, initial=done, desc=verb, file=stream, dynamic_ncols=True, bar_format=_BAR)

    def stage(self, text: str) -> None:
        """Name what is happening before the next unit is done, such as ``starting Ray``; the same name goes on."""
        with self._lock:
            if text != self._stage:
                self._stage, self._stage_began, self._line_due = text, time.monotonic(), 0.0
                self._history.clear()
        self.renew()

    def reach(self, done: int, note: str = "") -> None:
        """Say how many units are done, from the first of all.

        Args:
            done: units; fewer than before if some are done again.
            note: further figures, such as the loss.
        """
        with self._lock:
            if done == self._done and self._history:
                return
            if done < self._done:  # it began again from before
                self._history.clear()
            if not self._history:
                self._line_due = 0.0
            self._stage, self._done, self._note = "", done, note
            now = time.monotonic()
            self._history.append((now, done))
            while len(self._history) > 2 and now - self._history[0][0] > WINDOW_S:
                self._history.popleft()
        self.renew()

    def advance(self, units: int = 1) -> None:
        """Say that more units are done."""
        self.reach(self._done + units)

    def renew(self) -> None:
        """Show the present state: a bar always, a line only if one is due."""
        with self._lock:
            if self._bar is None:
                now = time.monotonic()
                if self._stream and now >= self._line_due:
                    self._line_due, self._written = now + LINE_EVERY_S, self._done
                    self._stream.write(f"{self._verb}: {self.describe()}\n")
                    self._stream.flush()
                return
            self._bar.bar_format = "{desc}" if self._stage else _BAR
            self._bar.set_description_str(f"{self._verb}: {self.describe()}" if self._stage else self._verb, refresh=False)
            self._bar.n = self._done
            self._bar.set_postfix_str(self._describe_rate(), refresh=False)
            self._bar.refresh()

    def describe(self) -> str:
        """The present state in words: the stage and its seconds, or units done, rate and time left."""
        if self._stage:
            seconds = time.monotonic() - self._stage_began
            return f"{self._stage} … {seconds:.0f} s" if seconds >= RENEW_EVERY_S else self._stage
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        rate = self._describe_rate()
        return f"{self._done}/{self._total} {self._unit}s{share}{', ' if rate else ''}{rate}"

    def _describe_rate(self) -> str:
        rate, parts = self.rate, []
        if rate:
            parts.append(f"{rate:.1f} {self._unit}s/s" if rate >= 1 else f"{1 / rate:.2f} s/{self._unit}")
            if self._done < self._total:
                parts.append(f"{format_seconds((self._total - self._done) / rate)} left")
        return ", ".join([*parts, *([self._note] if self._note else [])])

    @property
    def rate(self) -> float:
        """Units a second over the last minute; 0 until two units were seen to be done."""
        if len(self._history) < 2:
            return 0.0
        (began, first), (ended, last) = self._history[0], self._history[-1]
        return (last - first) / (ended - began) if ended > began else 0.0

    def close(self) -> None:
        """Show the last state for good; a stage in which the verb ended is not left on the screen."""
        with self._lock:
            if self._bar is None:
                if self._history and self._done == self._total != self._written:
                    self._line_due = 0.0
                    self.renew()
                return
            self._bar.leave = bool(self._history)
            self._bar.close()


def format_seconds(seconds: float) -> str:
    """A duration as people say it: ``8 s``, ``3:05``, ``2:10:00`` or ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


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


def clear_bars() -> contextlib.AbstractContextManager[None]:
    """Context in which lines may be written to standard error: bars are taken away before, and drawn again after."""
    context: contextlib.AbstractContextManager[None] = tqdm.external_write_mode(file=sys.stderr)
    return context


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard error, above a bar if there is one."""
    with clear_bars():
        sys.stderr.writelines(f"{line}\n" for line in lines)


@contextlib.contextmanager
def repeat_in_thread(name: str, every_s: float, work: Callable[[], None]) -> Iterator[None]:
    """Call a function again and again in a thread, inside a ``with`` block.

    Args:
        name: of the thread.
        every_s: seconds between calls.
        work: the function; it must be thread-safe.

    Yields:
        Nothing; the thread ends with the block, after a call that is under way.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(every_s):
            work()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
