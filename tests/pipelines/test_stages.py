"""Stages against libraries that do the same, and against identities that need none."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from crossdim.pipelines.stages.intensity import FULL, Intensity, store
from crossdim.pipelines.stages.orient import orient
from crossdim.pipelines.stages.pseudo3d import present
from crossdim.pipelines.stages.resample import SAME_SPACING, Resample, resample
from crossdim.pipelines.stages.resize import Fit, find_tiling_box, fit
from crossdim.pipelines.stages.superpatch import count_boxes, cut_boxes
from crossdim.storage_schema.errors import SampleError, UsageError
from crossdim.storage_schema.pseudo3d import Pseudo3D, fold
from crossdim.storage_schema.sample import Origin, Sample, Scaling
from crossdim.storage_schema.superpatch import SuperpatchGrid, assemble
from crossdim.storage_schema.vocabulary import Modality, Presentation

RNG = np.random.default_rng(3)


def volume(array_DHW: np.ndarray, affine: np.ndarray, modality: Modality = Modality.CT) -> Sample:
    array = array_DHW.astype(np.float32)
    return Sample(
        key="0" * 32,
        presentation=None,
        array=array[None],
        modality=modality,
        scaling=Scaling(low=float(array.min()), high=float(array.max()) + 1),
        origin=Origin(uri="v", sha256="f" * 64),
        spacing_mm=tuple(float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)),
        affine=tuple(map(tuple, affine.tolist())),
    )


def image(array_CHW: np.ndarray) -> Sample:
    return Sample(
        key="0" * 32,
        presentation=Presentation.IMAGE,
        array=array_CHW,
        modality=Modality.XR,
        scaling=Scaling(low=0, high=255),
        origin=Origin(uri="i", sha256="f" * 64),
    )


def turned(degrees: float) -> np.ndarray:
    """A rotation about a skew axis."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.mark.parametrize("degrees", [0, 12])
def test_orientation_is_nibabels_closest_canonical_for_all_48_axis_orders(degrees):
    """Every permutation and flip of axes, straight and oblique."""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = turned(degrees) @ np.eye(3)[:, order] @ np.diag(signs) @ np.diag([1.0, 2.0, 3.0])
        affine[:3, 3] = [5, -7, 11]
        data_xyz = RNG.normal(size=(3, 4, 5)).astype(np.float32)
        canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(data_xyz, affine))
        ours = orient(volume(data_xyz.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]))

        assert np.array_equal(ours.array[0], canonical.get_fdata(dtype=np.float32).transpose(2, 1, 0))
        assert np.allclose(np.array(ours.affine)[:, [2, 1, 0, 3]], canonical.affine)
        assert np.allclose(ours.spacing_mm, canonical.header.get_zooms()[::-1])


def test_orienting_twice_changes_nothing():
    once = orient(volume(RNG.normal(size=(3, 4, 5)), np.diag([-1.0, 2.0, -3.0, 1.0])))
    twice = orient(once)

    assert np.array_equal(once.array, twice.array)
    assert once.affine == twice.affine


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 0.5), (1.0, 1.0, 3.0)])
def test_resampling_keeps_a_linear_ramp_where_it_stands_in_the_world(spacing):
    """Linear interpolation and a symmetric blur are exact on a ramp: each inner voxel must show its own world coordinate."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [10, 20, 30]
    index = np.indices((16, 24, 32)).reshape(3, -1)
    ramp = ((affine[:3, :3] @ index).T + affine[:3, 3]) @ [1.0, 2.0, 3.0]
    out = resample(volume(ramp.reshape(16, 24, 32), affine), Resample(spacing_mm=1.5))
    where = np.indices(out.array.shape[1:]).reshape(3, -1)
    new = np.array(out.affine)
    expected = (((new[:3, :3] @ where).T + new[:3, 3]) @ [1.0, 2.0, 3.0]).reshape(out.array.shape[1:])
    inner = (slice(3, -4),) * 3

    assert out.spacing_mm == (1.5, 1.5, 1.5)
    assert np.allclose(out.array[0][inner], expected[inner], atol=0.05)


@given(st.tuples(*[st.integers(2, 9)] * 3), st.tuples(*[st.floats(1.0, 5.0)] * 3), st.floats(0.4, 1.0), st.integers(0, 2**32 - 1))
def test_finer_voxels_are_interpolated_along_each_axis_up_to_the_border(shape, spacing, target, seed):
    """Against SciPy: beyond the outermost centres along one axis, values along the others are still interpolated."""
    array = np.random.default_rng(seed).normal(size=shape)
    out = resample(volume(array, np.diag([*spacing, 1.0])), Resample(spacing_mm=target))
    if max(abs(s / target - 1) for s in spacing) <= SAME_SPACING:
        return
    axes = [((np.arange(n) + 0.5) * target / s - 0.5) for n, s in zip(out.array.shape[1:], spacing, strict=True)]
    expected = ndimage.map_coordinates(array.astype(np.float32), np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest")

    assert np.allclose(out.array[0], expected, atol=1e-4)


def test_the_last_plane_of_a_volume_that_does_not_change_along_an_axis_is_like_the_others():
    """The last of the new centres, at 18.15 mm, lies behind the border of the volume, at 16.8 mm."""
    plane = RNG.normal(size=(1, 12, 14)) * 500
    out = resample(volume(np.repeat(plane, 7, axis=0), np.diag([2.4, 5.0, 5.0, 1.0])), Resample(spacing_mm=3.3)).array[0]

    assert (len(out) - 0.5) * 3.3 > 7 * 2.4
    assert np.abs(out - out[:1]).max() < 1e-3


def test_resampling_at_the_same_spacing_is_the_same_volume():
    """Interpolation would only blur; a spacing off by rounding is the same spacing."""
    sample = volume(RNG.normal(size=(4, 5, 6)), np.diag([1.0, 1.0004, 1.0, 1.0]))

    assert resample(sample, Resample(spacing_mm=1.0)) is sample


def test_shrinking_does_not_alias():
    """A pattern finer than the new voxels must fade to its mean, not come back as stripes."""
    stripes = np.broadcast_to(np.arange(64) % 2 * 100.0, (8, 64, 64)).copy()
    out = resample(volume(stripes, np.eye(4)), Resample(spacing_mm=3.0))

    assert np.abs(out.array[0, 1:-1, 2:-2, 2:-2] - 50).max() < 10


def test_a_single_slice_survives_larger_voxels():
    out = resample(volume(RNG.normal(size=(1, 20, 20)) + 9, np.eye(4)), Resample(spacing_mm=2.0))

    assert out.array.shape == (1, 1, 10, 10)
    assert out.array.mean() == pytest.approx(9, abs=0.5)


@pytest.mark.parametrize(
    ("shape", "spacing", "small"),
    [
        ((40, 40, 40), 0.002, True),
        ((40, 40, 40), 0.05, True),
        ((1, 1, 300), 1.0, True),
        ((40, 40, 40), 0.2, False),
        ((1, 20, 20), 1.0, False),
        ((1, 1, 300), 2.0, False),
    ],
)
def test_a_volume_that_would_end_as_a_line_or_a_point_is_refused(shape, spacing, small):
    """Micrometres taken for millimetres; when it is planned and when it is resampled. The wanted spacing is never refused."""
    config = Resample(spacing_mm=2.0)
    sample = volume(RNG.normal(size=shape), np.diag([spacing] * 3 + [1.0]))
    if small:
        for work in (lambda: config.check_extent(shape, (spacing,) * 3), lambda: resample(sample, config)):
            with pytest.raises(SampleError, match="too_small"):
                work()
    else:
        config.check_extent(shape, (spacing,) * 3)
        assert np.isfinite(resample(sample, config).array).all()


def test_a_lie_about_millimetres_is_refused_before_memory_is_asked_for():
    sample = volume(RNG.normal(size=(4, 4, 4)), np.diag([1e4, 1e4, 1e4, 1.0]))
    with pytest.raises(SampleError, match="too_large"):
        resample(sample, Resample(spacing_mm=1.0))


@given(st.tuples(*[st.integers(1, 300)] * 3), st.tuples(*[st.floats(0.1, 8)] * 3), st.floats(0.5, 4))
def test_the_new_grid_covers_the_old_extent_and_no_voxel_more(shape, spacing, target):
    new = Resample(spacing_mm=target, max_voxels=2**62).shape(shape, spacing)
    for n, s, m in zip(shape, spacing, new, strict=True):
        assert m * target >= n * s * (1 - 2e-3) - 0.006 * target
        assert (m - 1) * target < n * s * (1 + 2e-3)


def test_ct_is_stored_in_whole_hounsfield_units_above_air():
    hu = np.array([-3000, -1000, -999.6, 0, 40.4, 1000, 3000.0]).reshape(1, 1, 7)
    sample = store(volume(hu, np.eye(4)), Intensity(window_hu=(-1000, 1000)))

    assert sample.array.dtype == np.int16
    assert sample.array.ravel().tolist() == [0, 0, 0, 1000, 1040, 2000, 2000]
    assert sample.scaling.physical(sample.array).ravel().tolist() == [-1000, -1000, -1000, 0, 40, 1000, 1000]
    assert sample.unit().min() == 0
    assert sample.unit().max() == 1


def test_mr_takes_its_window_from_its_own_voxels_and_comes_back():
    """Zeros around the head must not move the window; one stored step is the rounding error."""
    values = RNG.gamma(4, 100, size=(20, 20, 20))
    values[:8] = 0
    sample = store(volume(values, np.eye(4), Modality.MR), Intensity(window_hu=(-1000, 1000)))
    low, high = np.percentile(values[values > 0].astype(np.float32), (0.5, 99.5))

    assert (sample.scaling.low, sample.scaling.high) == (pytest.approx(low), pytest.approx(high))
    assert sample.array.min() == 0
    assert sample.array.max() == FULL
    assert np.allclose(sample.scaling.physical(sample.array[0]), np.clip(values, low, high), atol=sample.scaling.slope)


@pytest.mark.parametrize("window", [(0, 0), (100, -100), (-1000.5, 1000), (-40000, 40000)])
def test_windows_that_cannot_be_stored_are_refused(window):
    with pytest.raises(UsageError):
        Intensity(window_hu=window)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 8), st.integers(1, 8), st.integers(0, 3))
def test_the_cut_image_tiles_and_no_larger_one_would(height, width, window, stride, padding):
    spec = Pseudo3D(window=window, stride=stride, padding=min(padding, window - 1))
    try:
        top, left, new_height, new_width = find_tiling_box(height, width, spec)
    except SampleError:
        assert min(height, width) < max(1, window - 2 * spec.padding)
        return

    spec.grid(new_height, new_width)
    assert 0 <= top <= height - new_height < stride
    assert 0 <= left <= width - new_width < stride


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_fitting_shrinks_and_cuts_and_says_so(dtype, channels):
    array = RNG.integers(0, np.iinfo(dtype).max, (channels, 101, 203)).astype(dtype)
    sample = fit(image(array), Fit(max_side=64), Pseudo3D())

    assert sample.array.shape == (1, 32, 64)
    assert sample.array.dtype == dtype
    assert (sample.extra["image_height"], sample.extra["image_width"]) == (32, 64)
    assert sample.extra["note"] == "from 101x203"


def test_an_image_that_fits_is_left_as_it_is():
    array = RNG.integers(0, 255, (1, 32, 64)).astype(np.uint8)

    assert np.array_equal(fit(image(array), Fit(max_side=64), Pseudo3D()).array, array)


def test_cropping_can_be_refused():
    with pytest.raises(SampleError, match="does_not_tile"):
        fit(image(np.zeros((1, 33, 64), np.uint8)), Fit(max_side=64, crop="refuse"), Pseudo3D())


def test_the_stored_view_folds_back_to_the_virtual_image():
    sample = fit(image(RNG.integers(0, 255, (3, 50, 62)).astype(np.uint8)), Fit(max_side=48), Pseudo3D())
    stored, virtual = (present(sample, Pseudo3D(), mode) for mode in ("stored", "virtual"))

    assert stored.key == virtual.key
    assert np.array_equal(fold(stored.array, Pseudo3D(), *virtual.array.shape[1:]), virtual.array)


def test_boxes_put_together_are_the_volume():
    """With the foreground rule off, nothing is lost, and each box knows where it was in volume and world."""
    grid = SuperpatchGrid(side=8, min_foreground=0)
    whole = store(volume(RNG.integers(-900, 900, (12, 9, 17)), np.diag([1.0, 2.0, 3.0, 1.0])), Intensity(window_hu=(-1000, 1000)))
    boxes = cut_boxes(whole, grid)

    assert len(boxes) == count_boxes((12, 9, 17), grid) == 12
    assert np.array_equal(assemble(((b.origin_zyx, b.array) for b in boxes), (12, 9, 17), 0), whole.array)
    assert len({box.key for box in boxes}) == 12
    for box in boxes:
        assert np.allclose(np.array(box.affine)[:3, 3], np.array(whole.affine)[:3, :3] @ box.origin_zyx)


def test_boxes_of_air_are_left_out_and_a_volume_of_air_is_refused():
    hu = np.full((8, 8, 16), -1000.0)
    hu[:, :, 8:] = 40
    grid = SuperpatchGrid(side=8)
    kept = cut_boxes(store(volume(hu, np.eye(4)), Intensity(window_hu=(-1000, 1000))), grid)

    assert [box.origin.part for box in kept] == ["box=01"]
    assert kept[0].foreground == 1
    empty = replace(kept[0], presentation=None, array=np.zeros((1, 8, 8, 8), np.int16))
    with pytest.raises(SampleError, match=r"no box of 8 .* the fullest has 0\. Is the window .* right\? \[no_foreground\]$"):
        cut_boxes(empty, replace(grid, min_foreground=0))


def test_a_nearly_empty_volume_is_refused_with_how_to_keep_it():
    """A mask of 40 voxels in a box of 512, where a fifth is wanted."""
    mask = np.zeros((1, 8, 8, 8), np.int16)
    mask[0, :5, 0] = 1
    hu = np.where(mask[0], 40.0, -1000.0)
    stored = store(volume(hu, np.eye(4)), Intensity(window_hu=(-1000, 1000)))
    grid = SuperpatchGrid(side=8, min_foreground=0.2)
    with pytest.raises(SampleError, match=r"at least 103 .* the fullest has 40\..*--set superpatch\.min_foreground=0"):
        cut_boxes(stored, grid)
    assert len(cut_boxes(stored, replace(grid, min_foreground=0))) == 1


def test_a_thin_volume_is_kept_by_its_own_voxels_and_a_plane_at_the_border_of_a_long_one_is_not():
    """Of 2 slices in a box of 64, a tenth is tissue: 0.3 % of the box. The last of 65 planes is all tissue: 1.6 % of its box."""
    window, grid = Intensity(window_hu=(-1000, 1000)), SuperpatchGrid(side=64)
    hu = np.full((2, 40, 40), -1000.0)
    hu[:, :4] = 40
    (thin,) = cut_boxes(store(volume(hu, np.eye(4)), window), grid)
    assert thin.foreground == 0.1
    assert np.array_equal(thin.array[0, :2, :40, :40], store(volume(hu, np.eye(4)), window).array[0])
    long = store(volume(np.full((65, 64, 64), 40.0), np.eye(4)), window)
    assert [box.origin.part for box in cut_boxes(long, grid)] == ["box=00"]


@pytest.mark.parametrize("settings", [{"thin": "drop"}, {"edge": "drop"}])
def test_a_thin_volume_is_refused_by_its_thickness_where_it_is_not_filled_up(settings):
    grid = SuperpatchGrid(side=16, **settings)
    stored = store(volume(RNG.integers(0, 900, (5, 16, 12)), np.eye(4)), Intensity(window_hu=(-1000, 1000)))
    for work in (lambda: count_boxes((5, 16, 12), grid), lambda: cut_boxes(stored, grid)):
        with pytest.raises(SampleError, match=r"5 along z, 12 along x voxels, a box 16; superpatch\.(thin|edge)=pad .* \[thin\]"):
            work()
