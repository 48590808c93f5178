"""Dual masks: exact counts, their shapes in space, and a transcription in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import RunError
from crossdim.training.data.order import rng_at
from crossdim.training.layers.masks import DualMask, MaskMode
from crossdim.training.layers.tokens import visible_mask
from tests.oracles import maesil as oracle

GRID = (16, 16, 16)
shares = st.floats(0, 0.999)
grids = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
modes = st.sampled_from(["tube_then_plane", "plane_x_axis", "random"])


def drawn(mask: DualMask, counts: tuple[int, int, int], positions: range, seed: int = 0) -> torch.Tensor:
    chance = np.stack([mask.draw(counts, rng_at(seed, position)) for position in positions])
    return mask.visible(torch.from_numpy(chance))


@pytest.mark.parametrize(
    ("share", "tubes", "a_plane", "visible", "masked"),
    [(0.25, 192, 144, 2304, 0.4375), (0.5, 128, 64, 1024, 0.75), (0.75, 64, 16, 256, 0.9375)],
)
def test_tubes_then_planes_keep_exact_counts(share: float, tubes: int, a_plane: int, visible: int, masked: float) -> None:
    """For several samples of several seeds."""
    mask = DualMask(spatial=share, depth=share)
    assert mask.num_visible(GRID) == visible
    for seed in range(3):
        ids = drawn(mask, GRID, range(4), seed)
        assert ids.shape == (4, visible)
        seen = visible_mask(ids, 4096).view(4, 16, 256)
        assert bool((seen.sum(dim=2) == a_plane).all())
        assert bool((seen.any(dim=1).sum(dim=1) <= tubes).all())  # all other places are hidden in every plane
        assert float((~seen).float().mean()) == masked


def test_planes_and_places_cross() -> None:
    """Exactly 8 planes, all with the same 128 places."""
    seen = visible_mask(drawn(DualMask(mode="plane_x_axis"), GRID, range(4)), 4096).view(4, 16, 256)
    for sample in seen:
        planes = sample[sample.any(dim=1)]
        assert planes.shape[0] == 8
        assert bool((planes == planes[0]).all())
        assert int(planes[0].sum()) == 128


def test_the_control_hides_three_quarters_anywhere() -> None:
    mask = DualMask(mode="random")
    assert drawn(mask, GRID, range(2)).shape == (2, 1024)
    seen = visible_mask(drawn(mask, GRID, range(64)), 4096).float().mean(dim=0)
    assert float(seen.min()) > 0.05 and float(seen.max()) < 0.5  # noqa: PT018 - no site is always or never seen


@given(mode=modes, counts=grids, spatial=shares, depth=shares, seed=st.integers(0, 99))
def test_ids_ascend_and_their_number_is_that_of_the_settings(
    mode: MaskMode, counts: tuple[int, int, int], spatial: float, depth: float, seed: int
) -> None:
    """For any grid and shares, also such as leave nothing to see."""
    mask = DualMask(mode=mode, spatial=spatial, depth=depth)
    ids = drawn(mask, counts, range(3), seed)
    total = int(np.prod(counts))
    assert ids.shape == (3, mask.num_visible(counts))
    assert bool((ids.diff(dim=1) > 0).all())
    assert int(ids.min()) >= 0
    assert int(ids.max()) < total
    assert int((~visible_mask(ids, total)).sum(dim=1)[0]) + ids.shape[1] == total


@given(counts=grids, spatial=shares, depth=shares, seed=st.integers(0, 99))
def test_a_batch_is_masked_like_its_samples_in_loops(
    counts: tuple[int, int, int], spatial: float, depth: float, seed: int
) -> None:
    mask = DualMask(spatial=spatial, depth=depth)
    for number, ids in enumerate(drawn(mask, counts, range(3), seed).tolist()):
        chance = mask.draw(counts, rng_at(seed, number)).astype(np.float64)
        assert ids == oracle.tube_then_plane(chance, spatial, depth)


@given(mode=modes)
def test_the_sample_alone_decides(mode: MaskMode) -> None:
    """The same place in a run, the same mask, whoever else is in the batch; another place, another mask."""
    mask = DualMask(mode=mode)
    many = drawn(mask, GRID, range(4))
    assert torch.equal(many[2], drawn(mask, GRID, range(2, 3))[0])
    assert len({tuple(row) for row in many.tolist()}) == 4
    assert not torch.equal(many[0], drawn(mask, GRID, range(1), seed=1)[0])


@pytest.mark.parametrize("mode", ["tube_then_plane", "plane_x_axis", "random"])
def test_nothing_hidden_and_nearly_all_hidden(mode: MaskMode) -> None:
    nothing = drawn(DualMask(mode=mode, spatial=0, depth=0), GRID, range(2))
    assert torch.equal(nothing, torch.arange(4096).expand(2, -1))
    assert DualMask(mode="tube_then_plane", spatial=0.999, depth=0.999).num_visible(GRID) == 16
    assert drawn(DualMask(mode=mode, spatial=0.999, depth=0.999), GRID, range(2)).shape[1] >= 1


def test_rounding_does_not_take_a_token_away() -> None:
    """10 * (1 - 0.9) is 0.9999999999999998 and means 1; 10 * (1 - 0.7) is 3.0000000000000004."""
    assert DualMask(spatial=0.9, depth=0).num_visible((1, 1, 100)) == 10
    assert DualMask(spatial=0.7, depth=0).num_visible((1, 1, 10)) == 3


def test_shares_outside_of_their_range_are_refused() -> None:
    with pytest.raises(RunError, match="shares"):
        DualMask(spatial=1.0)
    with pytest.raises(RunError, match="one of"):
        DualMask(mode="both")  # type: ignore[arg-type]
