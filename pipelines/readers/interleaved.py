"""Stacks of slices that lie between each other and together make one even stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.slice_order import one_per_position, slice_directions, stack_slices
from crossdim.storage_schema.errors import SampleError

#: Stacks further apart than this beside their normal, in pixels, are not looked at together. Ours: far above any rounding.
_NEAR_PIXELS = 1.0
#: Of more stacks than this, only all together are looked at: so many are patients to whom an anonymiser gave one UID. Ours.
_MAX_STACKS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stack:
    """A stack by the place of its slices: ``low`` to ``high`` mm along the normal, at ``beside_mm`` across it."""

    headers: tuple[SliceHeader, ...]
    normal: npt.NDArray[np.float64]
    low: float
    high: float
    beside_mm: npt.NDArray[np.float64]

    @property
    def is_single(self) -> bool:
        """Whether it is one slice."""
        return len(self.headers) == 1

    def may_share(self, other: _Stack) -> bool:
        """Whether slices of the two may lie between each other, by their outermost ones; a single slice may lie anywhere."""
        apart = max(self.low, other.low) > min(self.high, other.high)
        return (self.is_single or other.is_single or not apart) and self.is_in_line_with(other)

    def is_in_line_with(self, other: _Stack) -> bool:
        """Whether the two are stacked along one line."""
        pixel_mm = min(self.headers[0].spacing_mm or (0.0,))
        return bool(self.normal @ other.normal > 0.99) and bool(
            np.abs(self.beside_mm - other.beside_mm).max() <= _NEAR_PIXELS * pixel_mm
        )


def find_interleaved(stacks: Sequence[Sequence[SliceHeader]]) -> list[list[int]]:
    """Which stacks are parts of one: along one line, between each other, nowhere twice, and even together.

    Two stacks of which one begins where the other ends are two volumes; single slices are none, so they belong to what they
    continue. Two single slices are even wherever they lie, so these alone say nothing.

    Args:
        stacks: the slices of each, in any order; those whose place is not stated are left out.

    Returns:
        Groups of two stacks or more, by their numbers; a stack may be in several.
    """
    placed = {number: stack for number, headers in enumerate(stacks) if (stack := _place(headers))}
    if len(placed) > _MAX_STACKS:
        return [list(placed)] if _is_even(list(placed.values())) else []
    near = {one: [other for other in placed if other > one and placed[one].may_share(placed[other])] for one in placed}
    pairs = [[one, other] for one, others in near.items() for other in others if _is_even([placed[one], placed[other]])]
    paired = {number for pair in pairs for number in pair}
    groups = [group for group in _connect(near) if len(group) > 2 and not paired.issuperset(group)]
    return pairs + [group for group in groups if _is_even([placed[number] for number in group])]


def find_continued(stacks: Sequence[Sequence[SliceHeader]]) -> set[int]:
    """Which stacks begin where another ends, along one line and in its spacing.

    Args:
        stacks: the slices of each, in any order; those whose place is not stated, and single ones, are left out.
    """
    placed = [(number, stack) for number, headers in enumerate(stacks) if (stack := _place(headers)) and not stack.is_single]
    placed.sort(key=lambda one: one[1].low)
    found: set[int] = set()
    for (one, lower), (other, upper) in pairwise(placed):
        if lower.high < upper.low and lower.is_in_line_with(upper) and _is_even([lower, upper]):
            found |= {one, other}
    return found


def _place(headers: Sequence[SliceHeader]) -> _Stack | None:
    if not headers or any(one.position_mm is None or one.orientation is None or one.spacing_mm is None for one in headers):
        return None
    distinct = tuple(headers[number] for number in one_per_position(headers))
    try:
        axes = slice_directions(distinct[0])
    except SampleError:
        return None
    places = np.array([one.position_mm for one in distinct]) @ axes.T
    return _Stack(
        headers=distinct,
        normal=axes[0],
        low=float(places[:, 0].min()),
        high=float(places[:, 0].max()),
        beside_mm=places[0, 1:],
    )


def _is_even(stacks: Sequence[_Stack]) -> bool:
    headers = [header for stack in stacks for header in stack.headers]
    try:
        stack_slices(headers, tilt="correct")
    except SampleError:
        return False
    return len(headers) > 2


def _connect(near: dict[int, list[int]]) -> list[list[int]]:
    """Groups of numbers of which each is near another of its group."""
    group_of = {number: {number} for number in near}
    for one, others in near.items():
        for other in others:
            if group_of[one] is not group_of[other]:
                merged = group_of[one] | group_of[other]
                group_of |= dict.fromkeys(merged, merged)
    return [sorted(group) for group in {id(group): group for group in group_of.values()}.values()]
