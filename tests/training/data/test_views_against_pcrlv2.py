"""Boxes and crops against an independent transcription of PCRLv2's preparation."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from crossdim.training.data.views.boxes import Boxes, LocalBox, draw_box_pair, draw_local_boxes, overlap
from crossdim.training.data.views.resize import resize_box
from crossdim.training.methods.cdssl_views import Views3D
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
        a, b = (np.asarray(place) for place in places)
        found = overlap(a, np.asarray(sizes[0]), b, np.asarray(sizes[1]))
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
    assert np.allclose(resize_box(volume, (3, 4, 5), (16, 20, 24), (16, 20, 24)), theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "side"), [(s, published.CROP) for s in published.SIZES] + [(s, published.WINDOW) for s in published.WINDOWS]
)
def test_crops_of_every_size_have_the_published_voxels(size: published.Corner, side: published.Corner) -> None:
    """Antialiased where they shrink, on noise, to the last bit of float32."""
    volume = np.random.default_rng(0).random((128, 128, 100)).astype(np.float32)
    theirs = published.cut(volume, (3, 4, 2), size, side)
    ours = resize_box(volume.transpose(2, 0, 1), (2, 3, 4), (size[2], *size[:2]), (side[2], *side[:2])).transpose(1, 2, 0)
    assert np.abs(ours - theirs).max() < 1e-6


def _shares(pairs: np.ndarray, local: np.ndarray) -> tuple[float, float]:
    """How many local boxes lie whole in a global one, and how many touch neither; (N, 2, 2, 3) and (N, 2, 3)."""
    (starts, sizes), (start, size) = pairs.transpose(2, 0, 1, 3), local[:, None].transpose(2, 0, 1, 3)
    common = np.minimum(starts + sizes, start + size) - np.maximum(starts, start)
    return (common == size).all(-1).any(1).mean(), 1 - (common > 0).all(-1).any(1).mean()


def test_local_boxes_lie_in_global_ones_as_often_as_published() -> None:
    """One local box of 1,500 pairs each: both shares within 4 standard errors; boxes kept whole in the hull are far from both."""
    old, new, axes, count = random.Random(3), np.random.default_rng(4), [2, 0, 1], 1500
    pairs, theirs = [], []
    ours: dict[LocalBox, list[np.ndarray]] = {"published": [], "hull": []}
    shape = (SHAPE_XYZ[2], SHAPE_XYZ[0], SHAPE_XYZ[1])
    for _ in range(count):
        a, size_a, b, size_b = published.overlapping(SHAPE_XYZ, old)
        pair = np.array([[a, size_a], [b, size_b]])[:, :, axes]
        pairs.append(pair)
        theirs.append(np.array(published.draw_windows(SHAPE_XYZ, a, size_a, b, size_b, old)[0])[:, axes])
        for corners, found in ours.items():
            boxes = Boxes(start=pair[:, 0], size=pair[:, 1])
            box = draw_local_boxes(boxes, shape, Views3D().local_boxes, 1, new, corners=corners)
            found.append(np.array([box.start[0], box.size[0]]))
    shares = (_shares(np.array(pairs), np.array(local)) for local in (theirs, ours["published"], ours["hull"]))
    for share, other, hull in zip(*shares, strict=True):
        error = np.sqrt(2 * share * (1 - share) / count)
        assert abs(share - other) < 4 * error
        assert abs(share - hull) > 4 * error


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
