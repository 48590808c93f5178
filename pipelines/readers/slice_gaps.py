"""Slices missing from a stack: the run of evenly spaced slices that is kept, and what lies beyond its gaps.

A gap is a step well above the usual one, as it is where slices are missing, or where a scan goes on with another spacing. Steps
that are uneven without a gap are no reason to take a stack apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.raw import TiltRule
from crossdim.pipelines.readers.slice_grid import SAME_POSITION_MM
from crossdim.pipelines.readers.slice_order import one_per_position, same_grid, slice_directions, stack_slices
from crossdim.storage_schema.errors import SampleError

#: A step of this many usual ones is a gap: one slice missing makes 2, rounding of positions less than 1.5. Ours.
GAP = 1.6
#: A run is kept if it has so many positions, and this share of all: two slices are always evenly spaced. Ours.
MIN_POSITIONS = 3
MIN_SHARE = 0.25


def find_longest_run(headers: Sequence[SliceHeader], tilt: TiltRule) -> list[int] | None:
    """Find the longest run of slices between gaps; of equal ones the first along the normal.

    Args:
        headers: of the slices of one volume, in any order.
        tilt: whether a run that is sheared counts as even.

    Returns:
        Numbers of its slices, several at one position with it; None for a stack without gaps, and where no run is long and even
        enough to be kept.
    """
    if any(one.position_mm is None for one in headers):
        return None
    try:
        normal = slice_directions(same_grid(headers))[0]
    except SampleError:  # of several kinds, or without a direction: refused for that, whole
        return None
    depths = np.array([one.position_mm for one in headers]) @ normal
    order = np.argsort(depths, kind="stable")
    steps = np.diff(depths[order])
    apart = np.sort(steps[steps > SAME_POSITION_MM])
    if apart.size == 0:
        return None
    usual = apart[(apart.size - 1) // 2]
    starts = np.flatnonzero(steps > GAP * usual) + 1
    if starts.size == 0:
        return None
    runs = np.split(order, starts)
    positions = [1 + int((np.diff(depths[run]) > SAME_POSITION_MM).sum()) for run in runs]
    longest = int(np.argmax(positions))
    if positions[longest] < max(MIN_POSITIONS, MIN_SHARE * sum(positions)):
        return None
    kept = sorted(int(number) for number in runs[longest])
    return kept if _is_even([headers[number] for number in kept], tilt) else None


def _is_even(headers: Sequence[SliceHeader], tilt: TiltRule) -> bool:
    try:
        stack_slices([headers[number] for number in one_per_position(headers)], tilt=tilt)
    except SampleError:
        return False
    return True
