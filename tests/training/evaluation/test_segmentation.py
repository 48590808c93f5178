"""Segmentation figures against MONAI's and MedPy's numbers, against every pair of voxels, and where a mask is empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossdim.storage_schema.errors import GeometryError, RunError
from crossdim.training.evaluation.segmentation import FIGURES, Mask, Presence, compare_masks, dice, summary, surface_distances

MM = (1.0, 1.0, 1.0)


def _block(*extra: tuple[slice, slice, slice], start: int = 4) -> Mask:
    mask = np.zeros((16, 16, 16), bool)
    mask[start : start + 8, 4:12, 4:12] = True
    for box in extra:
        mask[box] = True
    return mask


def test_a_shifted_block() -> None:
    """From MONAI 1.6.1."""
    found = compare_masks(_block(start=5), _block(), MM)
    assert found.presence == Presence.FOUND
    assert found.dice == 0.875
    assert found.hausdorff_mm == found.hd95_mm == 1
    assert found.assd_mm == pytest.approx(0.33783783783783783, abs=1e-12)
    assert [len(d) for d in surface_distances(_block(start=5), _block(), MM)] == [296, 296]


def test_distances_are_in_millimetres_along_each_axis() -> None:
    """Slices 3 mm apart."""
    found = compare_masks(_block(start=5), _block(), (3, 1, 1))
    assert found.hausdorff_mm == found.hd95_mm == 3
    assert found.assd_mm == pytest.approx(0.8378378, abs=1e-7)


def test_a_far_voxel_is_the_business_of_the_hausdorff_distance_alone() -> None:
    found = compare_masks(_block((slice(2, 3), slice(2, 3), slice(2, 3))), _block(), MM)
    assert found.dice == pytest.approx(0.9990243902, abs=1e-10)
    assert found.hausdorff_mm == pytest.approx(math.sqrt(12))
    assert found.hd95_mm == found.hd95_pooled_mm == 0


def test_a_bump_tells_the_two_percentiles_apart() -> None:
    """2 mm for MONAI, which takes the worse direction; 0 for MedPy, which pools both."""
    found = compare_masks(_block((slice(12, 15), slice(4, 7), slice(4, 7))), _block(), MM)
    assert found.dice == pytest.approx(0.9743101808, abs=1e-10)
    assert (found.hausdorff_mm, found.hd95_mm, found.hd95_pooled_mm) == (3, 2, 0)


# ---- where a mask is empty ---------------------------------------------------------------------------------------


def test_a_missed_structure_is_charged_the_diagonal() -> None:
    """MONAI answers infinity and not a number, which drop out of a mean. 373.13 mm is what BraTS charges."""
    true = np.zeros((240, 240, 155), bool)
    true[100, 100, 100] = True
    missed, invented = compare_masks(np.zeros_like(true), true, MM), compare_masks(true, np.zeros_like(true), MM)
    assert (missed.presence, invented.presence) == (Presence.MISSED, Presence.INVENTED)
    for charged in (missed, invented):
        assert charged.dice == 0
        for name in FIGURES[1:]:
            assert getattr(charged, name) == pytest.approx(373.13, abs=5e-3)
    assert compare_masks(np.zeros_like(true), true, (2, 2, 2)).hd95_mm == pytest.approx(2 * 373.13, abs=1e-2)


def test_rightly_empty_is_perfect() -> None:
    absent = compare_masks(np.zeros((4, 4), bool), np.zeros((4, 4), bool), (1, 1))
    assert absent.presence == Presence.ABSENT
    assert absent.dice == 1
    assert absent.hausdorff_mm == absent.hd95_mm == absent.hd95_pooled_mm == absent.assd_mm == 0


def test_missing_a_structure_never_pays() -> None:
    """The figure of a model that answers nothing is worse than of one that answers poorly, and images are counted."""
    empty, poor = np.zeros((16, 16, 16), bool), _block((slice(0, 1), slice(0, 1), slice(0, 1)))
    poor = np.roll(poor, 4, axis=2)
    tried = summary([compare_masks(poor, _block(), MM), compare_masks(empty, empty, MM)])
    silent = summary([compare_masks(empty, _block(), MM), compare_masks(empty, empty, MM)])
    assert silent.dice < tried.dice
    assert all(getattr(silent, name) > getattr(tried, name) for name in FIGURES[1:])
    assert silent.counts == {Presence.FOUND: 0, Presence.MISSED: 1, Presence.INVENTED: 0, Presence.ABSENT: 1}
    assert silent.hausdorff_mm == pytest.approx(16 * math.sqrt(3))


def test_images_without_the_structure_have_no_mean() -> None:
    empty = np.zeros((4, 4), bool)
    with pytest.raises(RunError, match="found 1 images"):
        summary([compare_masks(empty, empty, (1, 1))])


# ---- properties --------------------------------------------------------------------------------------------------


def _filled(shape: tuple[int, ...]) -> st.SearchStrategy[Mask]:
    return arrays.arrays(bool, shape).filter(lambda mask: bool(mask.any()))


pairs = arrays.array_shapes(min_dims=2, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(_filled(shape), _filled(shape), st.tuples(*(st.sampled_from([0.5, 1.0, 2.5]) for _ in shape)))
)


def _points(mask: Mask, spacing: tuple[float, ...]) -> np.ndarray:
    """Centres of voxels with a face that borders on the outside: asked of every voxel and every neighbour."""
    axes = range(mask.ndim)
    steps = [tuple(sign * (a == axis) for a in axes) for axis in axes for sign in (-1, 1)]
    inside = {tuple(p) for p in np.argwhere(mask).tolist()}
    edge = [p for p in sorted(inside) if any(tuple(c + s for c, s in zip(p, step, strict=True)) not in inside for step in steps)]
    return np.array(edge) * np.array(spacing)


@given(pair=pairs)
def test_distances_are_those_of_every_pair_of_surface_voxels(pair: tuple[Mask, Mask, tuple[float, ...]]) -> None:
    """No distance transform, no erosion and no cropping in the oracle."""
    predicted, true, spacing = pair
    one, two = _points(predicted, spacing), _points(true, spacing)
    between = np.sqrt(((one[:, None] - two[None]) ** 2).sum(-1))
    there, back = between.min(1), between.min(0)
    found = compare_masks(predicted, true, spacing)
    assert found.hausdorff_mm == pytest.approx(max(there.max(), back.max()), abs=1e-9)
    assert found.hd95_mm == pytest.approx(max(np.quantile(there, 0.95), np.quantile(back, 0.95)), abs=1e-9)
    assert found.hd95_pooled_mm == pytest.approx(np.quantile([*there, *back], 0.95), abs=1e-9)
    assert found.assd_mm == pytest.approx((there.sum() + back.sum()) / (len(there) + len(back)), abs=1e-9)
    assert found.dice == pytest.approx(2 * np.sum(predicted & true) / (predicted.sum() + true.sum()))


@given(pair=pairs, factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_figures_know_neither_sides_nor_units(pair: tuple[Mask, Mask, tuple[float, ...]], factor: float) -> None:
    """Swapping the masks changes nothing; larger voxels scale every distance; a margin around the image changes nothing."""
    predicted, true, spacing = pair
    found = compare_masks(predicted, true, spacing)
    swapped = compare_masks(true, predicted, spacing)
    larger = compare_masks(predicted, true, [factor * step for step in spacing])
    padded = compare_masks(np.pad(predicted, 2), np.pad(true, 2), spacing)
    assert dice(predicted, true) == dice(true, predicted)
    for name in FIGURES[1:]:
        expected = getattr(found, name)
        assert getattr(swapped, name) == pytest.approx(expected, abs=1e-9)
        assert getattr(padded, name) == pytest.approx(expected, abs=1e-9)
        assert getattr(larger, name) == pytest.approx(factor * expected, abs=1e-9)


@pytest.mark.parametrize(
    ("predicted", "true", "spacing"),
    [
        (np.ones((2, 2), bool), np.ones((2, 3), bool), (1, 1)),
        (np.ones((2, 2), np.uint8), np.ones((2, 2), bool), (1, 1)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), (1, 1, 1)),
        (np.ones((2, 2), bool), np.ones((2, 2), bool), (1, 0)),
    ],
)
def test_what_does_not_fit_is_refused(predicted: Mask, true: Mask, spacing: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match="two boolean masks"):
        compare_masks(predicted, true, spacing)
