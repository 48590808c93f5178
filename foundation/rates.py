"""How fast units are done, and durations and sizes in words."""

from __future__ import annotations

import math
from collections import deque

#: Seconds over which the rate is taken.
WINDOW_S = 60.0
#: Seconds after the first unit in which others were begun together with it, and count as little as it does.
TOGETHER_S = 1.0


class Rate:
    """Units a second over the last minute, up to now: a job that stalls becomes slower.

    Units whose beginning is not known are no part of the rate: the time before the first of them may be that of something
    else, and of units that are done in parallel several end together.

    Args:
        now: when the first unit begins.
        done: units at that time.
    """

    def __init__(self, now: float, done: int) -> None:
        self._together_until = -math.inf
        self._marks: deque[tuple[float, int]] = deque([(now, done)])

    def begin(self, now: float, done: int) -> None:
        """Count from now on.

        Args:
            now: when the next unit begins.
            done: units at that time.
        """
        self._together_until = -math.inf
        self._marks = deque([(now, done)])

    def forget(self) -> None:
        """Count from the end of the next unit on: when it begins is not known."""
        self._marks.clear()

    def add(self, now: float, done: int) -> None:
        """Note that units are done.

        Args:
            now: when.
            done: all units at that time.
        """
        if not self._marks:
            self._together_until = now + TOGETHER_S
        if now < self._together_until:
            self._marks = deque([(now, done)])
            return
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= WINDOW_S:
            self._marks.popleft()

    def measure(self, now: float) -> float:
        """Units a second; 0 as long as it is not known.

        Units that are as many as came last are allowed to come now, so that the rate falls only once they are late.
        """
        if len(self._marks) < 2:
            return 0.0
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        units, coming = last - first, last - self._marks[-2][1]
        if units <= 0:
            return 0.0
        seconds = max(ended - began, (now - began) * units / (units + coming))
        return units / seconds if seconds > 0 else 0.0


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


def format_size(num_bytes: int) -> str:
    """A number of bytes for people: ``0.3 MB`` or ``12.0 GB``."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
