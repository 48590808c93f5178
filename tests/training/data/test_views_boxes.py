"""Boxes: overlaps that can be computed by hand, and places that are those of plain rejection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.data.views.boxes import Boxes, Side3, draw_box_pair, draw_local_boxes, overlap

seeds = st.integers(0, 2**32 - 1)
GLOBAL: tuple[Side3, ...] = ((64, 96, 96), (96, 96, 96), (64, 112, 112), (32, 64, 64))
LOCAL: tuple[Side3, ...] = ((16, 32, 32), (16, 16, 16), (32, 32, 32), (8, 8, 8))


def test_overlap_of_boxes_is_the_oracle_of_the_specification() -> None:
    """A shift by half of the edge gives 1/3, by three quarters 1/7."""
    start, size = np.zeros(3, int), np.full(3, 4)
    moved = np.array([[2, 0, 0], [3, 0, 0], [9, 0, 0]])
    assert overlap(start, size, moved, size) == pytest.approx([1 / 3, 1 / 7, 0])


@given(seed=seeds, extra=st.tuples(*[st.integers(0, 300)] * 3))
def test_pairs_overlap_and_sub_boxes_stay_inside_any_volume(seed: int, extra: tuple[int, int, int]) -> None:
    """From one that a single size fits into, to a whole chest."""
    rng = np.random.default_rng(seed)
    shape = (32 + extra[0], 64 + extra[1], 64 + extra[2])
    pair = draw_box_pair(shape, GLOBAL, rng)
    near = draw_local_boxes(pair, shape, LOCAL, 6, rng, corners="hull")
    anywhere = draw_local_boxes(pair, shape, LOCAL, 6, rng, corners="published")
    assert overlap(*(side for number in range(2) for side in (pair.start[number], pair.size[number]))) > 0.3
    low, high = pair.start.min(0) - 3, (pair.start + pair.size).max(0) + 3
    assert (pair.start >= 0).all()
    assert (pair.start + pair.size <= np.asarray(shape)).all()
    assert (near.start >= np.maximum(0, low)).all()
    assert (near.start + near.size <= np.minimum(shape, high)).all()
    assert (anywhere.start >= 0).all()
    assert (anywhere.start <= high).all()
    assert (anywhere.start + anywhere.size <= shape).all()


def _by_rejection(shape: Side3, sizes: tuple[Side3, ...], rng: np.random.Generator, count: int) -> Boxes:
    """Whole pairs drawn until enough satisfy the bound: the definition, in one gulp."""
    drawn = count * 60
    size = np.asarray(sizes)[rng.integers(len(sizes), size=(2, drawn))]
    start = rng.integers(0, np.asarray(shape) - size + 1)
    kept = np.flatnonzero(overlap(start[0], size[0], start[1], size[1]) > 0.3)[:count]
    assert len(kept) == count
    return Boxes(start=start[:, kept], size=size[:, kept])


def test_pairs_have_the_distribution_of_plain_rejection() -> None:
    """Kolmogorov-Smirnov on places, shifts and sizes of 1,500 pairs; seeds are fixed, and every p is above 0.01."""
    shape, sizes = (40, 52, 48), ((16, 20, 20), (20, 20, 20), (12, 26, 26), (40, 16, 16))
    rng = np.random.default_rng(3)
    pairs = [draw_box_pair(shape, sizes, rng) for _ in range(1500)]
    found = Boxes(start=np.stack([p.start for p in pairs], 1), size=np.stack([p.size for p in pairs], 1))
    expected = _by_rejection(shape, sizes, np.random.default_rng(4), 1500)
    for axis in range(3):
        for of in (lambda b: b.start[0], lambda b: b.start[1], lambda b: b.start[1] - b.start[0], lambda b: b.size[0]):
            assert stats.ks_2samp(of(found)[:, axis], of(expected)[:, axis]).pvalue > 0.01


def test_boxes_that_cannot_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(GeometryError, match="no two boxes"):
        draw_box_pair((16, 16, 16), ((32, 32, 32),), rng)
    with pytest.raises(GeometryError, match=r"no two boxes .* overlap by 1\.0 inside"):
        draw_box_pair((64, 64, 64), ((32, 32, 32),), rng, min_overlap=1.0)
    with pytest.raises(GeometryError, match="no local box"):
        draw_local_boxes(
            draw_box_pair((16, 16, 16), ((8, 8, 8),), rng), (16, 16, 16), ((32, 32, 32),), 6, rng, corners="published"
        )
