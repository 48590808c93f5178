"""Views of images: chance that stays within its table, and geometry that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.training.data.views import normalise, views_2d

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(8, 90)


@given(seed=seeds, height=sides, width=sides)
def test_rectangles_lie_inside_the_image_and_cover_the_asked_share(seed: int, height: int, width: int) -> None:
    """Where the image is long enough for the drawn aspect ratio, the share is exact; elsewhere it can only be smaller."""
    plan = views_2d.draw_plan_2d(
        (height, width), np.random.default_rng(seed), count=6, side=32, reference=32, area=(0.3, 1.0), holes=0
    )
    left, top, right, bottom = plan.edges.astype(float).T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= width).all()
    assert (bottom <= height).all()
    share = (right - left) * (bottom - top) / (height * width)
    inside = (right - left < width) & (bottom - top < height)
    assert (share <= 1 + 1e-5).all()
    assert (share[inside] > 0.3 - 1e-4).all()


@given(seed=seeds)
def test_cutout_removes_between_one_corner_and_three_squares(seed: int) -> None:
    """Three holes of side 32 on 224 pixels zero between 256 and 3,072 pixels."""
    plan = views_2d.draw_plan_2d((9, 9), np.random.default_rng(seed), count=1, side=224, reference=224, area=(0.3, 1.0), holes=3)
    zeroed = int((views_2d.cut_out(np.ones((224, 224), np.float32), plan.holes[0], 32) == 0).sum())
    assert 256 <= zeroed <= 3072


@given(seed=seeds)
def test_clean_and_lit_views_stay_in_unit_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((60, 80)).astype(np.float32)
    plan = views_2d.draw_plan_2d((60, 80), rng, count=3, side=32, reference=32, area=(0.3, 1.0), holes=1)
    clean, corrupted = views_2d.make_views_2d(image, plan, 32, 5)
    assert clean.shape == corrupted.shape == (3, 32, 32)
    assert clean.dtype == corrupted.dtype == np.float32
    lit = [views_2d.adjust_photometry(*one) for one in zip(clean, plan.blur_sigma, plan.brightness, plan.contrast, strict=True)]
    for view in (*clean, *lit):
        assert view.min() >= 0
        assert view.max() <= 1


def test_a_crop_of_everything_at_the_same_size_is_the_image() -> None:
    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    assert np.array_equal(views_2d.crop_and_resize(image, np.array([0, 0, 32, 32], np.float32), 32), image)


def test_a_random_crop_is_the_first_rectangle_of_a_plan() -> None:
    """Methods that draw no plan crop by the same table."""
    image = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    plan = views_2d.draw_plan_2d((40, 60), np.random.default_rng(7), count=1, side=16, reference=16, area=(0.3, 1.0), holes=0)
    found = views_2d.random_resized_crop(image, np.random.default_rng(7), 16, (0.3, 1.0))
    assert np.array_equal(found, views_2d.crop_and_resize(image, plan.edges[0], 16))


def test_a_view_is_its_plan() -> None:
    """Crop, turn, flip, blur, light, normalisation and holes, one after the other, in this order."""
    rng = np.random.default_rng(5)
    image = rng.random((50, 40)).astype(np.float32)
    plan = views_2d.draw_plan_2d((50, 40), rng, count=4, side=24, reference=24, area=(0.3, 1.0), holes=2)
    clean, corrupted = views_2d.make_views_2d(image, plan, 24, 6)
    for v in range(4):
        expected = views_2d.rotate_and_flip(
            views_2d.crop_and_resize(image, plan.edges[v], 24), plan.angle_deg[v], bool(plan.flip[v])
        )
        assert np.array_equal(clean[v], expected)
        lit = views_2d.adjust_photometry(expected, plan.blur_sigma[v], plan.brightness[v], plan.contrast[v])
        assert np.array_equal(corrupted[v], views_2d.cut_out(normalise(lit), plan.holes[v], 6))


def test_chances_are_those_of_the_table() -> None:
    """4,000 views: halves within 4 standard errors, ranges filled to their ends and nowhere beyond."""
    plan = views_2d.draw_plan_2d((64, 64), np.random.default_rng(0), count=4000, side=64, reference=64, area=(0.05, 0.3), holes=1)
    for share in (plan.flip.mean(), (plan.blur_sigma > 0).mean()):
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(4000)
    blurred = plan.blur_sigma[plan.blur_sigma > 0]
    for values, low, high in (
        (plan.angle_deg, -10, 10),
        (blurred, 0.1, 2),
        (plan.brightness, 0.6, 1.4),
        (plan.contrast, 0.6, 1.4),
        (plan.holes, 0, 63),
    ):
        span = high - low
        assert low <= values.min() < low + 0.01 * span
        assert high - 0.01 * span < values.max() <= high


@given(seed=seeds)
def test_normalised_arrays_have_mean_zero_and_deviation_one(seed: int) -> None:
    array = np.random.default_rng(seed).normal(3, 2, (9, 9, 9)).astype(np.float32)
    assert abs(float(normalise(array).mean())) < 1e-5
    assert float(normalise(array).std()) == pytest.approx(1, abs=1e-4)
    assert not normalise(np.full((4, 4), 7, np.float32)).any()
