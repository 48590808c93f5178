"""Views: geometry that can be computed by hand, and chance that stays within its table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_schema.errors import GeometryError
from training.data import views as v

seeds = st.integers(0, 2**32 - 1)


def test_overlap_of_boxes_is_the_oracle_of_the_specification() -> None:
    """O-B15: a shift by half of the edge gives 1/3, by three quarters 1/7."""
    a = v.Box(start=(0, 0, 0), size=(4, 4, 4))
    assert v.overlap(a, v.Box(start=(2, 0, 0), size=(4, 4, 4))) == pytest.approx(1 / 3)
    assert v.overlap(a, v.Box(start=(3, 0, 0), size=(4, 4, 4))) == pytest.approx(1 / 7)
    assert v.overlap(a, v.Box(start=(9, 0, 0), size=(4, 4, 4))) == 0


@given(seed=seeds)
def test_pairs_overlap_and_sub_boxes_stay_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = ((32, 48, 48), (48, 48, 48), (16, 32, 32))
    a, b = v.box_pair((64, 64, 64), sizes, rng)
    assert v.overlap(a, b) > 0.3
    low = np.minimum(a.start, b.start) - 3
    high = np.maximum(np.add(a.start, a.size), np.add(b.start, b.size)) + 3
    for box in (a, b, *v.sub_boxes(a, b, (64, 64, 64), ((8, 16, 16), (4, 4, 4)), 6, rng)):
        assert (np.asarray(box.start) >= np.maximum(0, low)).all()
        assert (np.add(box.start, box.size) <= np.minimum(64, high) + 1e-9).all()


def test_boxes_that_cannot_fit_are_refused() -> None:
    with pytest.raises(GeometryError, match="no two boxes"):
        v.box_pair((16, 16, 16), ((32, 32, 32),), np.random.default_rng(0))


def test_a_box_at_its_own_size_is_a_plain_slice() -> None:
    volume = np.random.default_rng(0).random((20, 22, 24)).astype(np.float32)
    found = v.box_resampled(volume, v.Box(start=(3, 4, 5), size=(8, 9, 10)), (8, 9, 10), None)
    assert np.allclose(found, volume[3:11, 4:13, 5:15], atol=1e-6)


def test_a_resampled_ramp_is_a_ramp() -> None:
    """Linear interpolation is exact on linear functions: the voxel centres say where each sample must lie."""
    z = np.arange(32, dtype=np.float32)[:, None, None] / 64 + np.zeros((32, 32, 32), np.float32)
    found = v.box_resampled(z, v.Box(start=(4, 0, 0), size=(16, 32, 32)), (8, 32, 32), None)
    assert np.allclose(found[:, 5, 5], (4 + 0.5 + 2 * np.arange(8)) / 64, atol=1e-6)


@given(angles=st.tuples(*[st.floats(-10, 10)] * 3))
def test_rotations_keep_lengths_and_handedness(angles: tuple[float, float, float]) -> None:
    matrix = v.rotation(np.array(angles))
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


@given(seed=seeds)
def test_cutout_removes_between_one_corner_and_three_squares(seed: int) -> None:
    """O-B13: three holes of side 32 on 224 pixels zero between 256 and 3,072 pixels."""
    zeroed = int((v.cut_out(np.ones((224, 224), np.float32), np.random.default_rng(seed), 3, 32) == 0).sum())
    assert 256 <= zeroed <= 3072


@given(seed=seeds)
def test_2d_views_stay_in_unit_range_and_crops_cover_the_asked_area(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.random((60, 80)).astype(np.float32)
    view = v.photometric(v.turned(v.crop_resized(image, rng, 32, (0.3, 1.0)), rng, 10), rng)
    assert view.shape == (32, 32)
    assert view.dtype == np.float32
    assert view.min() >= 0
    assert view.max() <= 1


def test_a_crop_of_everything_at_the_same_size_is_the_image() -> None:
    """Scale 1 with a square aspect is drawn by a generator that always answers the middle."""

    class Middle:
        def uniform(self, low: float, high: float) -> float:
            return (low + high) / 2

    image = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    assert np.allclose(v.crop_resized(image, Middle(), 32, (1.0, 1.0)), image, atol=1e-6)  # type: ignore[arg-type]


@given(seed=seeds)
def test_swapping_patches_keeps_every_voxel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    volume = rng.random((16, 16, 16)).astype(np.float32)
    swapped = v.swapped(volume, rng, (4, 4, 8), 1)
    assert np.isclose(swapped.sum(), volume.sum(), rtol=0.2)
    assert swapped.shape == volume.shape


@given(seed=seeds)
def test_normalised_arrays_have_mean_zero_and_deviation_one(seed: int) -> None:
    array = np.random.default_rng(seed).normal(3, 2, (9, 9, 9)).astype(np.float32)
    assert abs(float(v.normalised(array).mean())) < 1e-5
    assert float(v.normalised(array).std()) == pytest.approx(1, abs=1e-4)
    assert not v.normalised(np.full((4, 4), 7, np.float32)).any()
