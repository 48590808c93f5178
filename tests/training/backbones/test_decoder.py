"""The decoder undoes any reduction by twos, and ends at 1/4, 1/2 and 1 of the input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.backbones.decoder import Decoder3D, upsampling

powers = st.sampled_from([1, 2, 4, 8, 16, 32])


@given(st.tuples(powers, powers, powers))
def test_steps_multiply_to_the_reduction_and_the_last_two_levels_are_half_and_whole(reduction: tuple[int, int, int]) -> None:
    steps = upsampling(reduction)
    assert tuple(math.prod(axis) for axis in zip(*steps, strict=True)) == reduction
    assert all(factor in (1, 2) for step in steps for factor in step)
    for left, scale in ((2, 4), (1, 2)):
        rest = tuple(math.prod(axis) for axis in zip(*steps[-left:], strict=True))
        assert rest == tuple(min(r, scale) for r in reduction)


def test_a_reduction_by_8_is_pcrlv2s_decoder_and_deeper_ones_rise_first() -> None:
    assert upsampling((8, 8, 8)) == [(2, 2, 2)] * 3
    assert upsampling((4, 8, 8)) == [(1, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert upsampling((8, 32, 32)) == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]
    assert "rise.0.0.weight" not in Decoder3D(4, (4, 2, 2), (8, 8, 8), "bn").state_dict()


@pytest.mark.parametrize("reduction", [(8, 32, 32), (1, 2, 2), (16, 16, 4)])
def test_levels_have_the_sizes_that_are_promised(reduction: tuple[int, int, int]) -> None:
    levels = Decoder3D(6, (4, 2, 3), reduction, "gn")(torch.randn(1, 6, 1, 2, 1))
    full = (reduction[0], 2 * reduction[1], reduction[2])
    for level, width, scale in zip(levels, (4, 2, 3), (4, 2, 1), strict=True):
        sides = tuple(side // min(r, scale) for side, r in zip(full, reduction, strict=True))
        assert level.shape == (1, width, *sides)


@pytest.mark.parametrize("reduction", [(3, 2, 2), (8, 12, 8), (0, 2, 2)])
def test_other_factors_are_refused(reduction: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError, match="powers of two"):
        upsampling(reduction)
