"""Stopwatch: cases timed in turns, so that a machine that is busy for a while is busy for all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Seconds of each run, by case.
Times = dict[str, list[float]]


def in_turns(
    cases: Mapping[str, Callable[[], object]], *, runs: int = 7, repeat: int = 1, clock: Callable[[], float] = time.perf_counter
) -> Times:
    """Time every case once a round, for ``runs`` rounds after one that is not counted.

    Args:
        cases: what to call, by name.
        runs: rounds that count.
        repeat: calls a run; the time of one is their mean.
        clock: seconds so far; of processor time where others keep the machine busy.
    """
    times: Times = {name: [] for name in cases}
    for number in range(runs + 1):
        for name, call in cases.items():
            begun = clock()
            for _ in range(repeat):
                call()
            seconds = (clock() - begun) / repeat
            if number:
                times[name].append(seconds)
    return times


def wait_for_device(device: torch.device, call: Callable[[], object]) -> Callable[[], None]:
    """Make a call return only when the device has done its work.

    Args:
        device: that computes.
        call: starts the work.

    Returns:
        A call of no arguments.
    """

    def call_and_wait() -> None:
        call()
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize()

    return call_and_wait


def spread(values: list[float], digits: int) -> str:
    """Median, and the range in brackets."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def show(title: str, times: Times, *, limit: str, unit: str = "ms", per_second: float = 1e3, digits: int = 2) -> None:
    """Print a table: each case's time and its ratio to the limit, round by round.

    Args:
        title: what was measured.
        times: of :func:`in_turns`.
        limit: the case that the others are held against.
        unit: of the printed times.
        per_second: how many of that unit a second has.
        digits: behind the point.
    """
    print(f"\n{title}")
    print(f"  {'case':<44} {unit + ', median (min-max)':>28}   times the limit")
    for name, seconds in times.items():
        ratios = [one / other for one, other in zip(seconds, times[limit], strict=True)]
        beside = "limit" if name == limit else spread(ratios, 2)
        print(f"  {name:<44} {spread([s * per_second for s in seconds], digits):>28}   {beside}")
