"""The superpatch grid: counts and padding worked out by hand, and that nothing is lost between cutting and assembling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.superpatch import SuperpatchGrid, assemble, compute_foreground, cut
from tests.strategies import arrays_of

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
FILL = -7


@pytest.mark.parametrize(
    ("shape", "padded", "dropped"),
    [((200, 300, 512), (2, 3, 4), (1, 2, 4)), ((512, 512, 512), (4, 4, 4), (4, 4, 4)), ((100, 512, 512), (1, 4, 4), (0, 4, 4))],
)
def test_counts_agree_with_the_table(shape, padded, dropped):
    """24 or 8, 64 or 64, 16 or 0 boxes of 128."""
    assert SuperpatchGrid(edge="pad").counts(shape) == padded
    assert SuperpatchGrid(edge="drop").counts(shape) == dropped
    assert len(SuperpatchGrid(edge="pad").starts(shape)) == np.prod(padded)
    assert len(SuperpatchGrid(edge="drop").starts(shape)) == np.prod(dropped)


def test_boxes_stand_in_raster_order():
    """The position of a box is part of its key, so its order is part of the format: x fastest, z slowest."""
    starts = SuperpatchGrid(side=2).starts((4, 2, 5))

    assert starts == [(0, 0, 0), (0, 0, 2), (0, 0, 4), (2, 0, 0), (2, 0, 2), (2, 0, 4)]
    assert starts == sorted(starts)


@given(SHAPES.flatmap(lambda shape: arrays_of((2, *shape))), st.integers(1, 10))
def test_cutting_with_padding_and_assembling_gives_the_volume(volume, side):
    """Bit exact, for any shape and dtype; padding is cropped away again."""
    fill = 0 if volume.dtype.kind == "u" else FILL
    starts = SuperpatchGrid(side=side, edge="pad").starts(volume.shape[1:])
    boxes = [(start, cut(volume, start, side, fill)) for start in starts]
    again = assemble(boxes, volume.shape[1:], fill)

    assert again.dtype == volume.dtype
    assert np.array_equal(again, volume)
    assert {box.shape for _, box in boxes} == {(2, side, side, side)}


@given(SHAPES, st.integers(1, 4))
def test_dropping_keeps_only_whole_boxes(shape, side):
    """What is dropped is the end of each axis, and assembling shows it as fill."""
    volume = np.random.default_rng(0).integers(0, 99, (1, *shape)).astype(np.int16)
    kept = tuple(slice(0, size // side * side) for size in shape)
    starts = SuperpatchGrid(side=side, edge="drop").starts(shape)
    if not starts:
        assert min(shape) < side
        return
    again = assemble([(s, cut(volume, s, side, FILL)) for s in starts], shape, FILL)
    expected = np.full_like(volume, FILL)
    expected[(0, *kept)] = volume[(0, *kept)]

    assert np.array_equal(again, expected)


@given(SHAPES, st.integers(1, 4))
def test_every_voxel_lies_in_exactly_one_box(shape, side):
    """Overlaps would train on the same voxel twice; gaps would lose anatomy."""
    counts = np.zeros(shape, int)
    for z, y, x in SuperpatchGrid(side=side, edge="pad").starts(shape):
        counts[z : z + side, y : y + side, x : x + side] += 1

    assert (counts == 1).all()


def test_beyond_the_border_a_box_is_fill():
    """Air is not zero in every scaling, so the caller says what it is."""
    box = cut(np.ones((1, 3, 2, 2), np.int16), (2, 0, 0), 2, FILL)

    assert box[0, 0].tolist() == [[1, 1], [1, 1]]
    assert (box[0, 1] == FILL).all()


def test_a_box_owns_its_memory():
    """A stage that scales a box in place must not change the volume that the next box is cut from."""
    volume = np.zeros((1, 4, 4, 4), np.int16)
    for side in (2, 4):
        box = cut(volume, (0, 0, 0), side, 0)

        assert box.flags.c_contiguous
        assert not np.shares_memory(box, volume)


def test_a_box_outside_of_the_volume_is_refused():
    """A box of pure fill would be a training sample that shows nobody."""
    with pytest.raises(GeometryError, match="outside a volume"):
        cut(np.zeros((1, 4, 4, 4), np.int16), (4, 0, 0), 4, 0)


def test_assembling_nothing_is_refused():
    """Channels and dtype would be a guess."""
    with pytest.raises(GeometryError, match="no box"):
        assemble([], (4, 4, 4), 0)


def test_foreground_is_the_share_of_brighter_voxels():
    """The threshold itself counts as air, so a clipped background is never foreground."""
    box = np.array([0.0, 0.02, 0.03, 1.0], np.float32).reshape(1, 1, 2, 2)

    assert compute_foreground(box, above=np.float32(0.02), num_voxels=box.size) == 0.5
    assert SuperpatchGrid(side=8).count_fillable((8, 9, 100)) == 8**3
    assert SuperpatchGrid(side=8).count_fillable((3, 9, 5)) == 3 * 8 * 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": 0},
        {"edge": "wrap"},
        {"thin": "keep"},
        {"foreground_above": -0.1},
        {"min_foreground": 1.5},
        {"min_foreground": float("nan")},
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(wrong):
    """A configuration checks itself when it is made."""
    with pytest.raises(GeometryError):
        replace(SuperpatchGrid(), **wrong)
