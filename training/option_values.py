"""Reads the values of options of the command line."""

from __future__ import annotations

import argparse
import math

#: Largest numbers that options take: of threads, and of seconds, a year.
MAX_THREADS, MAX_INTERVAL_S = 1024, 366 * 86400.0


def parse_worker_range(text: str) -> tuple[int, int]:
    """Read ``4`` or ``2:16`` as the fewest and the most workers."""
    least, _, most = text.partition(":")
    try:
        found = int(least), int(most or least)
    except ValueError:
        found = (-1, -1)
    if not 0 <= found[0] <= found[1] or (found[0] == 0 and found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of workers: a number, or MIN:MAX with 1 <= MIN <= MAX")
    return found


def parse_checkpoint_interval(text: str) -> tuple[int | None, float | None]:
    """Read ``100`` as steps or ``30s`` as seconds."""
    try:
        steps, seconds = (None, float(text[:-1])) if text.endswith("s") else (int(text), None)
    except ValueError:
        steps, seconds = None, None
    if not 0 < (steps or seconds or 0) < math.inf:  # also of nan
        raise argparse.ArgumentTypeError(f"{text!r} does not say how far checkpoints lie apart: steps as 100, or seconds as 30s")
    return steps, seconds


def parse_thread_count(text: str) -> int:
    """Threads of a worker: 1 to 1024."""
    if not text.isascii() or not text.isdigit() or not 1 <= len(text) <= 4 or not 1 <= int(text) <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads: 1 to {MAX_THREADS}")
    return int(text)


def parse_seconds(text: str) -> float:
    """Read seconds: a number greater than 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_INTERVAL_S:  # also of nan
        raise argparse.ArgumentTypeError(f"{text!r} is no interval: seconds, greater than 0 and at most {MAX_INTERVAL_S:.0f}")
    return seconds


def parse_baseline_count(text: str) -> int:
    """Read the number of untrained encoders to compare with: 1 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of baselines: there is at least 1 untrained encoder to compare with"
        )
    return int(text)


def parse_fold_count(text: str) -> int:
    """Read the number of parts of a cross-validation: 2 or more."""
    if not text.isascii() or not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of folds: a cross-validation has 2 or more parts")
    return int(text)
