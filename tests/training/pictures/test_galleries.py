"""Pictures of volumes: which slice is shown."""

from __future__ import annotations

import numpy as np
import pytest

from crossdim.training.pictures.galleries import draw_slice, find_shown_depth


def _volume(first: int, last: int) -> np.ndarray:
    """16 slices; those from ``first`` to ``last`` hold noise of growing deviation, the others are constant."""
    volume = np.zeros((1, 16, 8, 8), np.float32)
    noise = np.random.default_rng(0).normal(0, 1, (last - first, 8, 8))
    volume[0, first:last] = noise * np.arange(1, last - first + 1)[:, None, None]
    return volume


@pytest.mark.parametrize(
    ("first", "last", "shown"),
    [(0, 16, 8), (0, 3, 2), (12, 14, 13), (8, 9, 8), (0, 0, 8)],
    ids=["full", "thin", "end", "one", "none"],
)
def test_the_middle_slice_is_shown_unless_nothing_is_in_it(first: int, last: int, shown: int) -> None:
    volume = _volume(first, last)
    assert find_shown_depth(volume) == shown
    assert np.array_equal(draw_slice(volume, None), volume[0, shown])


def test_pictures_of_one_sample_can_share_a_slice() -> None:
    assert np.array_equal(draw_slice(_volume(0, 16), None, find_shown_depth(_volume(0, 3))), _volume(0, 16)[0, 2])
