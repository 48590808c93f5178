"""Boxes and crops against an independent transcription of PCRLv2's preparation."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from crossdim.training.data.views.boxes import draw_box_pair, overlap
from crossdim.training.data.views.views_3d import resample_box
from crossdim.training.methods.cdssl_p3d import Views3D
from tests.oracles import pcrlv2_crops as published

SHAPE_XYZ = (300, 290, 150)
PAIRS = 400


def test_sizes_are_the_published_ones_with_depth_first() -> None:
    assert [(z, x, y) for x, y, z in published.SIZES] == list(Views3D().global_boxes)
    assert [(z, x, y) for x, y, z in published.WINDOWS] == list(Views3D().local_boxes)
    assert (published.CROP[2], *published.CROP[:2]) == Views3D().global_side


def test_the_overlap_of_published_pairs_is_ours() -> None:
    rng = random.Random(0)
    for _ in range(200):
        sizes = [rng.choice(published.SIZES) for _ in range(2)]
        places = [published.origin(SHAPE_XYZ, size, rng) for size in sizes]
        a, b = (np.asarray(place, float) for place in places)
        found = overlap(a, np.asarray(sizes[0], float), b, np.asarray(sizes[1], float))
        assert found == pytest.approx(published.iou(places[0], sizes[0], places[1], sizes[1]))


def test_pairs_of_a_volume_without_its_margins_have_the_published_distribution() -> None:
    """Before rejection. Kolmogorov-Smirnov on 400 pairs with fixed seeds: sizes, places and shifts; every p is above 0.01."""
    old, new = random.Random(1), np.random.default_rng(2)
    theirs = np.array([published.overlapping(SHAPE_XYZ, old) for _ in range(PAIRS)], float)[:, :, [2, 0, 1]]
    inside = tuple(SHAPE_XYZ[axis] - 2 * published.MARGIN[axis] for axis in (2, 0, 1))
    pairs = [draw_box_pair((inside[0], inside[1], inside[2]), Views3D().global_boxes, new) for _ in range(PAIRS)]
    margin = np.array([published.MARGIN[axis] for axis in (2, 0, 1)])
    ours = np.array([[p.start[0] + margin, p.size[0], p.start[1] + margin, p.size[1]] for p in pairs])
    for axis in range(3):
        for of in (lambda p: p[:, 0], lambda p: p[:, 1], lambda p: p[:, 2] - p[:, 0]):
            assert stats.ks_2samp(of(ours)[:, axis], of(theirs)[:, axis]).pvalue > 0.01


def test_a_crop_of_its_own_size_has_the_published_voxels() -> None:
    volume = np.random.default_rng(0).random((40, 50, 60)).astype(np.float32)
    theirs = published.cut(volume, (3, 4, 5), (16, 20, 24), (16, 20, 24))
    assert np.allclose(resample_box(volume, (3, 4, 5), (16, 20, 24), (16, 20, 24)), theirs, atol=1e-6)


def test_halving_a_smooth_crop_gives_nearly_the_published_voxels() -> None:
    """Theirs is blurred against aliasing and ours is not (as TorchIO's affine is not): on smooth voxels both agree inside."""
    z, y, x = np.meshgrid(*[np.arange(48)] * 3, indexing="ij")
    volume = (0.5 + 0.4 * np.sin(x / 9) * np.cos(y / 11) * np.sin(z / 13)).astype(np.float32)
    theirs = published.cut(volume, (4, 4, 4), (32, 32, 32), (16, 16, 16))
    ours = resample_box(volume, (4, 4, 4), (32, 32, 32), (16, 16, 16))
    assert np.abs(ours - theirs)[2:-2, 2:-2, 2:-2].max() < 0.01


def test_the_score_counts_tissue_now_and_two_slices_on() -> None:
    """One column with tissue in slice 2: its own slice counts 1, the one before 1/2, and the one before that 0."""
    crop = np.zeros((2, 2, 6), np.float32)
    crop[0, 1, 2] = 1
    assert published.tissue_score(crop) == pytest.approx(1.5)


@pytest.mark.integration
def test_pure_tissue_is_rejected_for_every_size_but_the_largest_cube() -> None:
    """The bound grows with the crop before resizing: 0.15 x 96^3 exceeds all that the resized crop can score."""
    tissue = np.ones(published.CROP, np.float32)
    found = {size: published.rejected(tissue, tissue, size) for size in published.SIZES}
    assert [size for size, bad in found.items() if not bad] == [(96, 96, 96)]
    assert not published.rejected(0 * tissue, 0 * tissue, (64, 64, 32))


def test_a_pair_is_two_crops_and_six_windows() -> None:
    first, second, local = published.crop_pair(np.zeros(SHAPE_XYZ, np.float32), random.Random(0))
    assert first.shape == second.shape == published.CROP
    assert [crop.shape for crop in local] == [published.WINDOW] * 6
