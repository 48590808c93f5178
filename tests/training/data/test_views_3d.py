"""Views of volumes: voxel centres that can be computed by hand, and distortions one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from crossdim.training.data.views import normalise, views_3d
from crossdim.training.data.views.boxes import Boxes
from crossdim.training.data.views.resize import build_resize_matrix, resize_box

seeds = st.integers(0, 2**32 - 1)
SIDE = (16, 16, 16)


def plan(seed: int, count: int = 2, swaps: int = 5) -> views_3d.Plan3D:
    """Views of (16, 16, 16) from boxes around the middle of a volume of 32."""
    boxes = Boxes(start=np.full((count, 3), 6), size=np.full((count, 3), 20))
    return views_3d.draw_plan_3d(boxes, SIDE, SIDE, swaps, np.random.default_rng(seed))


def test_a_box_at_its_own_size_is_a_plain_slice() -> None:
    volume = np.random.default_rng(0).random((20, 22, 24)).astype(np.float32)
    found = resize_box(volume, (3, 4, 5), (8, 9, 10), (8, 9, 10))
    assert np.allclose(found, volume[3:11, 4:13, 5:15], atol=1e-6)


def test_a_resized_ramp_is_a_ramp() -> None:
    """A symmetric filter and linear interpolation are exact on linear functions, but for the mirrored ends."""
    z = np.arange(32, dtype=np.float32)[:, None, None] / 64 + np.zeros((32, 32, 32), np.float32)
    found = resize_box(z, (4, 0, 0), (16, 32, 32), (8, 32, 32))
    assert np.allclose(found[1:-1, 5, 5], (4 + 0.5 + 2 * np.arange(1, 7)) / 64, atol=1e-6)


@given(length=st.integers(1, 40), side=st.integers(1, 40))
def test_resizing_is_scikit_images(length: int, side: int) -> None:
    """Every column of the matrix: what becomes of one bright voxel of an axis, shrunk or enlarged by any factor."""
    found = build_resize_matrix(length, side)
    expected = np.stack([resize(row, (side,), order=1) for row in np.eye(length)], axis=1)
    assert np.abs(found - expected).max() < 1e-6
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


def test_noise_of_neighbouring_slices_is_smoothed_where_a_box_shrinks_and_only_there() -> None:
    """White noise shrunk by 3 along the depth keeps the deviation that the squared weights of the filter give."""
    volume = np.random.default_rng(0).standard_normal((96, 64, 64)).astype(np.float32)
    found = resize_box(volume, (0, 0, 0), (96, 64, 64), (32, 64, 64))
    weights = build_resize_matrix(96, 32)[16]
    assert found[4:-4].std() == pytest.approx(np.sqrt((weights**2).sum()), rel=0.02)
    assert found[4:-4].std() < 0.6


@given(angles=st.tuples(*[st.floats(-10, 10)] * 3))
def test_rotations_keep_lengths_and_handedness(angles: tuple[float, float, float]) -> None:
    matrix = views_3d.rotation(np.array([angles, (0, 0, 0)]))
    assert np.allclose(matrix[0] @ matrix[0].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[0]) == pytest.approx(1)
    assert np.array_equal(matrix[1], np.eye(3))


@given(seed=seeds)
def test_the_centre_of_a_box_is_the_centre_of_its_view_however_it_is_turned(seed: int) -> None:
    affine = plan(seed).placement.affine(SIDE)
    assert np.allclose(affine @ [7.5, 7.5, 7.5, 1], 7.5)


def test_a_voxel_of_a_turned_view_is_as_long_as_its_box_says() -> None:
    """Boxes are not cubes: in voxels of the volume, views are scaled along their own axes, then turned, and not sheared."""
    boxes = Boxes(start=np.zeros((1, 3), int), size=np.array([[8, 16, 48]]))
    scales, angles = np.array([[0.9, 1.0, 1.1]]), np.array([[10.0, -7, 4]])
    placement = views_3d.Placement(boxes=boxes, angles_deg=angles, scales=scales, flip=np.array([True]))
    matrix = np.diag([0.5, 1.0, 3.0]) @ placement.affine(SIDE)[0, :, :3]
    assert np.allclose(matrix.T @ matrix, np.diag([0.45, 1.0, 3.3]) ** 2, atol=1e-12)


def test_a_flip_exchanges_left_and_right_and_nothing_else() -> None:
    volume = np.random.default_rng(0).random((32, 32, 32)).astype(np.float32)
    boxes = Boxes(start=np.full((1, 3), 6), size=np.full((1, 3), 20))
    straight = views_3d.Placement(boxes=boxes, angles_deg=np.zeros((1, 3)), scales=np.ones((1, 3)), flip=np.array([False]))
    flipped = dataclasses.replace(straight, flip=np.array([True]))
    one, two = (views_3d.place_views(volume, p, (10, 10, 10))[0] for p in (straight, flipped))
    assert np.allclose(one[:, :, ::-1], two, atol=1e-6)


def test_outside_of_its_box_a_turned_view_is_the_least_value_of_the_box() -> None:
    """As in TorchIO: what lies beside the box in the volume, here 0 and 1, is not shown."""
    volume = np.random.default_rng(0).integers(0, 2, (32, 32, 32)).astype(np.float32)
    volume[6:26, 6:26, 6:26] = np.random.default_rng(1).uniform(0.25, 0.75, (20, 20, 20))
    found = views_3d.place_views(volume, plan(0).placement, SIDE)
    for view, start in zip(found, plan(0).placement.boxes.start, strict=True):
        least = resize_box(volume, start, (20, 20, 20), SIDE).min()
        assert view.min() == least > 0.2
        assert view.max() < 0.8
        assert (view == least).sum() > 100


@given(seed=seeds)
def test_swapping_two_disjoint_patches_exchanges_them_and_twice_is_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    volume = rng.random((16, 16, 16)).astype(np.float32)
    swap = np.stack([rng.integers(0, (5, 13, 9)), rng.integers((8, 0, 0), (13, 13, 9))])
    if abs(swap[0, 0] - swap[1, 0]) < 4:
        swap[0, 0] = 0
    once = views_3d.swap_patches(volume, swap[None], (4, 4, 8))
    assert np.array_equal(np.sort(once, axis=None), np.sort(volume, axis=None))
    (z, y, x), (w, v, u) = swap
    assert np.array_equal(once[z : z + 4, y : y + 4, x : x + 8], volume[w : w + 4, v : v + 4, u : u + 8])
    assert np.array_equal(views_3d.swap_patches(volume, np.stack([swap, swap]), (4, 4, 8)), volume)


def test_corruption_without_chance_is_normalisation() -> None:
    view = np.random.default_rng(0).random((2, 16, 16, 16)).astype(np.float32)
    nothing = views_3d.Corruption(
        blur_sigma=np.zeros((2, 3)),
        noise_deviation=np.zeros(2),
        noise_seed=np.asarray(1),
        log_gamma=np.zeros(2),
        swaps=np.zeros((2, 0, 2, 3), int),
    )
    assert np.allclose(views_3d.corrupt(view, nothing, SIDE), [normalise(one) for one in view], atol=1e-6)


def test_noise_is_that_of_the_plans_seed_unless_it_is_given() -> None:
    """Equal plans give equal bits, and every view has its own noise."""
    clean = np.full((2, 16, 16, 16), 0.5, np.float32)
    corruption = plan(0).corruption
    once, again = (views_3d.corrupt(clean, corruption, SIDE) for _ in range(2))
    given_none = views_3d.corrupt(clean, corruption, SIDE, np.zeros_like(clean))
    assert np.array_equal(once, again)
    assert not np.array_equal(once[0], once[1])
    assert np.allclose(given_none, 0, atol=1e-6)


def test_noise_has_the_deviation_of_the_plan() -> None:
    """Before gamma and normalisation: what is seen of them is undone by a plan that has neither blur, gamma nor swaps."""
    corruption = dataclasses.replace(plan(0, swaps=0).corruption, blur_sigma=np.zeros((2, 3)), log_gamma=np.zeros(2))
    step = np.zeros((2, 32, 32, 32), np.float32)
    step[:, 16:] = 0.8
    corrupted = views_3d.corrupt(step, corruption, SIDE)
    for view, deviation in zip(corrupted, corruption.noise_deviation, strict=True):
        scale = np.sqrt(0.4**2 + deviation**2)
        assert view[:16].std() * scale == pytest.approx(deviation, rel=0.02)
        assert (view[16:].mean() - view[:16].mean()) * scale == pytest.approx(0.8, rel=0.02)


def test_chances_are_those_of_the_table() -> None:
    """Ranges filled to their ends and nowhere beyond; patches of swaps inside the view."""
    drawn = plan(0, count=4000, swaps=2)
    place, spoil = drawn.placement, drawn.corruption
    assert abs(place.flip.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    for values, low, high in (
        (place.angles_deg, -10, 10),
        (place.scales, 0.9, 1.1),
        (spoil.blur_sigma, 0, 2),
        (spoil.noise_deviation, 0, 0.25),
        (spoil.log_gamma, -0.3, 0.3),
        (spoil.swaps[..., 0], 0, 12),
        (spoil.swaps[..., 2], 0, 8),
    ):
        span = high - low
        assert low <= values.min() < low + 0.01 * span
        assert high - 0.01 * span < values.max() <= high


def test_a_view_of_half_the_side_is_blurred_by_half_and_has_less_noise() -> None:
    """So that a part of the body is distorted alike: an eighth of the voxels average away sqrt(8) times less noise."""
    boxes = Boxes(start=np.full((2, 3), 6), size=np.full((2, 3), 20))
    whole, half = (views_3d.draw_plan_3d(boxes, side, (32, 32, 32), 3, np.random.default_rng(0)) for side in ((32,) * 3, SIDE))
    assert np.allclose(half.corruption.blur_sigma, whole.corruption.blur_sigma / 2)
    assert np.allclose(half.corruption.noise_deviation, whole.corruption.noise_deviation / np.sqrt(8))
    assert np.array_equal(half.corruption.log_gamma, whole.corruption.log_gamma)
    assert (views_3d.swap_patch((32, 32, 32), (32, 32, 32)), views_3d.swap_patch(SIDE, (32, 32, 32))) == ((4, 4, 8), (2, 2, 4))
    assert views_3d.swap_patch((2, 2, 2), (32, 32, 32)) == (1, 1, 1)


@pytest.mark.parametrize("shape", [(20, 17, 23), (1, 9, 8), (7, 1, 1), (2, 2, 2)])
def test_interpolation_is_scipys(shape: tuple[int, int, int]) -> None:
    """Value by value, inside and up to the faces of the outermost voxels, for boxes as thin as they can be."""
    rng = np.random.default_rng(0)
    box = rng.random(shape, np.float32) + 1
    for _ in range(10):
        matrix = views_3d.rotation(rng.uniform(-40, 40, 3)) @ np.diag(rng.uniform(-2, 2, 3))
        affine = np.concatenate([matrix, rng.uniform(-3, np.maximum(shape, 4))[:, None]], axis=1)
        expected = ndimage.affine_transform(
            box, matrix, affine[:, 3], output_shape=(6, 7, 8), order=1, output=np.float32, mode="nearest"
        )
        places = np.einsum("ij,jdhw->idhw", matrix, np.indices((6, 7, 8))) + affine[:, 3, None, None, None]
        inside = ((places > -0.5) & (places < np.array(shape)[:, None, None, None] - 0.5)).all(axis=0)
        found = views_3d.resample(box, affine, (6, 7, 8))
        assert (np.abs(found - np.where(inside, expected, box.min())) > 1e-4).mean() <= (0 if min(shape) > 1 else 0.01)


def test_the_last_voxel_is_itself() -> None:
    volume = np.random.default_rng(0).random((3, 4, 5), np.float32)
    assert np.array_equal(views_3d.resample(volume, np.eye(3, 4), (3, 4, 5)), volume)
