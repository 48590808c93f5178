"""Views of a batch on the device against NumPy, SciPy and Pillow on equal plans; on this machine's accelerator if it has one.

Tolerances are for float32: 1e-5 where arithmetic is the same, 1e-4 after normalisation of a whole view. Two places can differ by
more, where both sides round a place on the border of a hard edge differently; no plan with a fixed seed here has such a voxel.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

from crossdim.training.data.collate import collate
from crossdim.training.data.views import filters_torch, views_2d, views_2d_torch, views_3d, views_3d_torch
from crossdim.training.data.views.boxes import Boxes
from crossdim.training.data.views.packing import pack, unpack

seeds = st.integers(0, 2**32 - 1)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIDE = (16, 24, 20)
REFERENCE = (32, 48, 20)
SIZES = [(20, 24, 22), (24, 12, 20)]


def on_device(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def batched(arrays: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    keys = [str(number) for number in range(len(arrays))]
    return collate(arrays, keys, "image", len(arrays)).to(DEVICE).tensors


# ---- filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0, 0.1, 0.12, 0.124, 0.126, 0.5, 0.87, 0.874, 0.876, 1.3, 1.999, 2.0])
@pytest.mark.parametrize("length", [3, 8, 17, 64])
def test_blur_has_scipys_taps_reach_and_border(sigma: float, length: int) -> None:
    """Widths around those where the number of taps changes; lengths down to fewer voxels than a filter has taps."""
    line = np.random.default_rng(length).random(length)
    matrix = filters_torch.build_gaussian_matrices(torch.tensor([sigma], dtype=torch.float64), length, 2.0)[0]
    expected = ndimage.gaussian_filter(line, sigma)
    assert np.allclose(matrix.double().numpy() @ line, expected, atol=1e-6)


def test_normalised_is_numpys() -> None:
    views = np.random.default_rng(0).normal(3, 2, (3, 5, 6)).astype(np.float32)
    views[1] = 7
    found = filters_torch.normalise(on_device(views), (1, 2)).cpu()
    assert np.allclose(found, [views_2d.normalise(view) for view in views], atol=1e-5)


# ---- images ------------------------------------------------------------------------------------------------------


@given(seed=seeds, out=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_resizing_is_pillows(seed: int, out: int) -> None:
    """Any rectangle, up and down, of images with padding behind them that nothing must read."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(4, 60, 2))
    image = rng.random((height, width)).astype(np.float32)
    left, top = rng.uniform(0, width - 2), rng.uniform(0, height - 2)
    edges = np.array([left, top, rng.uniform(left + 1, width), rng.uniform(top + 1, height)], np.float32)
    wasteful = np.pad(image, ((0, 7), (0, 5)), constant_values=1e6)
    shape = torch.tensor([[height, width]], device=DEVICE)
    found = views_2d_torch.crop_and_resize(on_device(wasteful)[None], shape, on_device(edges)[None, None], out)[0, 0]
    assert np.abs(found.cpu().numpy() - views_2d.crop_and_resize(image, edges, out)).max() < 1e-5


@given(
    angle=st.one_of(st.floats(-10, 10), st.sampled_from([0.0, 90.0, 180.0, 45.0])), side=st.integers(2, 40), flip=st.booleans()
)
@settings(max_examples=50, deadline=None)
def test_turning_is_pillows(angle: float, side: int, flip: bool) -> None:
    image = np.random.default_rng(side).random((side, side)).astype(np.float32)
    found = views_2d_torch.rotate_and_flip(
        on_device(image)[None], torch.tensor([angle], dtype=torch.float64, device=DEVICE), torch.tensor([flip], device=DEVICE)
    )
    expected = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
    wrong = np.abs(found[0].cpu().numpy() - (expected[:, ::-1] if flip else expected)) > 1e-4
    # Turned by right angles, outermost places lie on the border itself.
    assert not wrong.any() if angle % 90 or not angle else wrong.mean() < 2.1 / side


def test_flat_views_of_a_batch_are_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    images = [rng.random((int(h), int(w))).astype(np.float32) for h, w in rng.integers(60, 120, (6, 2))]
    plans = [
        views_2d.draw_plan_2d((i.shape[0], i.shape[1]), rng, count=3, side=48, reference=96, area=(0.05, 1.0), holes=3)
        for i in images
    ]
    tensors = batched(
        [{"source": i, "shape": np.array(i.shape), **pack(plan, "p")} for i, plan in zip(images, plans, strict=True)]
    )
    found = views_2d_torch.make_views_2d(tensors["source"], tensors["shape"], unpack(views_2d.Plan2D, tensors, "p"), 48, 96, 15)
    for number, (image, plan) in enumerate(zip(images, plans, strict=True)):
        clean, corrupted = views_2d.make_views_2d(image, plan, 48, 15)
        assert np.abs(found[0][number].cpu().numpy() - clean).max() < 1e-5
        assert np.abs(found[1][number].cpu().numpy() - corrupted).max() < 1e-4


# ---- volumes -----------------------------------------------------------------------------------------------------


def volumes_and_plans(count: int, swaps: int = 60) -> tuple[list[np.ndarray], list[views_3d.Plan3D]]:
    """Volumes of different sizes; boxes of two sizes at any of their borders, one shrunk along the depth and one enlarged."""
    rng = np.random.default_rng(2)
    volumes = [rng.random(tuple(rng.integers(24, 40, 3))).astype(np.float32) for _ in range(count)]
    boxes = [Boxes(start=rng.integers(0, np.array(v.shape) - SIZES + 1), size=np.array(SIZES)) for v in volumes]
    return volumes, [views_3d.draw_plan_3d(box, SIDE, REFERENCE, swaps, rng) for box in boxes]


def solid_batch(volumes: list[np.ndarray], plans: list[views_3d.Plan3D]) -> dict[str, torch.Tensor]:
    rows = [
        {"source": v, "affine": p.placement.affine(SIDE), **pack(p.placement.boxes, "p"), **pack(p.corruption, "p")}
        for v, p in zip(volumes, plans, strict=True)
    ]
    return batched(rows)


def clean_views(t: dict[str, torch.Tensor]) -> torch.Tensor:
    return views_3d_torch.resample(views_3d_torch.resize_boxes(t["source"], t["p.start"], t["p.size"], SIZES, SIDE), t["affine"])


def test_boxes_are_cut_resized_and_turned_as_by_numpy() -> None:
    """Volumes of different sizes in one padded batch; turned views show some of what lies outside of their box."""
    volumes, plans = volumes_and_plans(6)
    found = clean_views(solid_batch(volumes, plans)).cpu().numpy()
    outside = 0
    for views, volume, plan in zip(found, volumes, plans, strict=True):
        expected = views_3d.place_views(volume, plan.placement, SIDE)
        outside += (expected == expected.min(axis=(1, 2, 3), keepdims=True)).sum()
        assert np.abs(views - expected).max() < 1e-5
    assert outside > 5_000


def test_a_box_of_its_own_size_is_a_copy() -> None:
    volume = np.random.default_rng(0).random((30, 31, 32)).astype(np.float32)
    start, size = torch.tensor([[[3, 4, 5]]], device=DEVICE), torch.tensor([[SIDE]], device=DEVICE)
    found = views_3d_torch.resize_boxes(on_device(volume)[None], start, size, [SIDE], SIDE)[0, 0].cpu().numpy()
    assert np.array_equal(found, volume[3 : 3 + SIDE[0], 4 : 4 + SIDE[1], 5 : 5 + SIDE[2]])


def test_a_view_without_a_turn_keeps_its_outermost_voxels() -> None:
    """Places that lie on the border itself are inside."""
    volume = np.random.default_rng(0).random(SIDE).astype(np.float32)
    plain = np.concatenate([np.eye(3), np.zeros((3, 1))], axis=1)
    found = views_3d_torch.resample(on_device(volume)[None, None], on_device(plain)[None, None])[0, 0]
    assert np.abs(found.cpu().numpy() - volume).max() < 1e-5


@given(seed=seeds, times=st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_swaps_one_after_the_other_are_numpys(seed: int, times: int) -> None:
    """Small views, so that patches overlap each other and those before them; to the bit."""
    rng = np.random.default_rng(seed)
    views = rng.random((3, 6, 7, 12)).astype(np.float32)
    swaps = rng.integers(0, (3, 4, 5), (3, times, 2, 3))
    found = views_3d_torch.swap_patches(on_device(views), on_device(swaps), (4, 4, 8)).cpu().numpy()
    assert np.array_equal(found, [views_3d.swap_patches(view, swap, (4, 4, 8)) for view, swap in zip(views, swaps, strict=True)])


def test_solid_views_of_a_batch_are_those_of_numpy_where_noise_is_given() -> None:
    volumes, plans = volumes_and_plans(5)
    t = solid_batch(volumes, plans)
    noise = np.random.default_rng(3).standard_normal((5, 2, *SIDE), np.float32)
    clean = clean_views(t)
    found = views_3d_torch.corrupt(clean, unpack(views_3d.Corruption, t, "p"), REFERENCE, on_device(noise)).cpu().numpy()
    for number, (volume, plan) in enumerate(zip(volumes, plans, strict=True)):
        expected, _ = views_3d.make_views_3d(volume, plan, SIDE, REFERENCE)
        assert np.abs(found[number] - views_3d.corrupt(expected, plan.corruption, REFERENCE, noise[number])).max() < 1e-4


def test_noise_belongs_to_the_sample_and_not_to_its_batch() -> None:
    seeds_B = torch.tensor([5, 2**62, 7], device=DEVICE)
    together = views_3d_torch.draw_noise(seeds_B, (3, 2, 4, 4, 4))
    alone = views_3d_torch.draw_noise(seeds_B[1:2], (1, 2, 4, 4, 4))
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[2])
    assert not torch.equal(together[0, 0], together[0, 1])


def test_noise_is_standard_normal() -> None:
    """Moments within 5 standard errors, Kolmogorov-Smirnov against the normal distribution; 300 seeds."""
    noise = views_3d_torch.draw_noise(torch.arange(300, device=DEVICE), (300, 2, 8, 8, 8)).cpu().double().numpy()
    error = 1 / np.sqrt(noise.size)
    assert abs(noise.mean()) < 5 * error
    assert abs(noise.std() - 1) < 5 * error / np.sqrt(2)
    assert abs((noise**4).mean() - 3) < 5 * error * np.sqrt(96)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(noise.reshape(300, -1))[np.triu_indices(300, 1)]).max() < 6 / np.sqrt(1024)


def test_both_ways_of_rendering_have_the_same_statistics() -> None:
    """What noise leaves of equal plans: skewness, extremes and roughness of 300 views a way; Kolmogorov-Smirnov, p above 0.01."""
    rng = np.random.default_rng(4)
    volume = ndimage.gaussian_filter(rng.random((32, 32, 32)), 2).astype(np.float32) * 3 - 1
    boxes = Boxes(start=np.full((2, 3), 4), size=np.array([SIZES[0]] * 2))
    plans = [views_3d.draw_plan_3d(boxes, SIDE, REFERENCE, 5, rng) for _ in range(150)]
    t = solid_batch([volume] * 150, plans)
    clean = clean_views(t)
    device = views_3d_torch.corrupt(clean, unpack(views_3d.Corruption, t, "p"), REFERENCE).flatten(0, 1).cpu().numpy()
    numpy = np.concatenate([views_3d.make_views_3d(volume, plan, SIDE, REFERENCE)[1] for plan in plans])
    for statistic in (
        lambda view: stats.skew(view, axis=None),
        lambda view: view.max(),
        lambda view: view.min(),
        lambda view: np.abs(np.diff(view, axis=2)).mean(),
    ):
        one, two = ([statistic(view) for view in views] for views in (device, numpy))
        assert stats.ks_2samp(one, two).pvalue > 0.01


def test_nothing_is_made_on_another_device_than_the_batch_is_on() -> None:
    """Tensors without memory stand for an accelerator: arithmetic that mixes them with others of the CPU is refused."""
    volumes, plans = volumes_and_plans(2)
    t = {name: tensor.to("meta") for name, tensor in solid_batch(volumes, plans).items()}
    clean = clean_views(t)
    corrupted = views_3d_torch.corrupt(clean, unpack(views_3d.Corruption, t, "p"), REFERENCE, clean)
    assert corrupted.is_meta
    plan = views_2d.draw_plan_2d((30, 30), np.random.default_rng(0), count=2, side=16, reference=16, area=(0.3, 1.0), holes=2)
    image = {"source": np.zeros((30, 30), np.uint8), "shape": np.array([30, 30]), "scale": np.ones(2, np.float32)}
    t = {name: tensor.to("meta") for name, tensor in batched([image | pack(plan, "p")] * 2).items()}
    unit = filters_torch.to_unit_range(t["source"], t["scale"])
    assert views_2d_torch.make_views_2d(unit, t["shape"], unpack(views_2d.Plan2D, t, "p"), 16, 16, 4)[1].is_meta


def test_plans_travel_whole() -> None:
    plan = dataclasses.replace(volumes_and_plans(1)[1][0].corruption, noise_seed=np.asarray(2**62 + 1))
    back = unpack(views_3d.Corruption, batched([pack(plan, "p")]), "p")
    for name, value in pack(plan, "p").items():
        assert np.array_equal(getattr(back, name[2:])[0].cpu(), value)
