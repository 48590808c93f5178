"""Reconstruction: measures against other programs and closed forms, assembly against identities, patterns against made ones."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from crossdim.storage_schema.errors import GeometryError, RunError
from crossdim.storage_schema.sample import Scaling
from crossdim.storage_schema.superpatch import SuperpatchGrid, assemble, cut
from crossdim.training.evaluation.assembly import Tiling, average_over_shifts, restore_in_slabs
from crossdim.training.evaluation.patterns import GridPattern
from crossdim.training.evaluation.quality import Comparison, psnr, ssim_map
from crossdim.training.evaluation.reconstruction import MaskedBoxes, Protocol, Volume, evaluate_volumes, measure
from crossdim.training.evaluation.restoring import RestorationResult
from crossdim.training.evaluation.volume_figures import Figure
from crossdim.training.layers.tokens import patchify, visible_mask
from crossdim.training.methods.base import Method
from crossdim.training.methods.masked_autoencoder import MaskedAutoencoder
from crossdim.training.methods.restoration import Restorer
from crossdim.training.pictures.restorations import panels
from crossdim.training.recipes import maesil as recipes

UNIT = Scaling(low=0, high=1)
HU = Scaling(intercept=-1000, low=-1000, high=1000)


def _smooth(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    grid = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    return np.asarray(0.5 + 0.4 * np.prod([np.sin(2 * g + p) for g, p in zip(grid, phase, strict=True)], axis=0), np.float32)


# ---- measures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "decibels"), [(0.1, 20.0), (0.5, 6.0206), (0.030620, 30.28)])
def test_decibels_of_a_uniform_error(error: float, decibels: float) -> None:
    assert psnr(error**2) == pytest.approx(decibels, abs=1e-3)
    comparison, true = Comparison(), torch.zeros(12, 12, 12)
    comparison.add(true + error, true)
    assert comparison.psnr == pytest.approx(decibels, abs=1e-3)


def test_of_equal_volumes() -> None:
    """SSIM is 1, and PSNR ends at a stated bound instead of at infinity."""
    comparison, x = Comparison(), torch.rand(12, 13, 14)
    comparison.add(x, x)
    assert comparison.ssim == pytest.approx(1)
    assert comparison.psnr == 100


@given(depth=st.integers(11, 16), rows=st.integers(11, 18), columns=st.integers(11, 20), seed=st.integers(0, 99))
def test_ssim_is_that_of_scikit_image(depth: int, rows: int, columns: int, seed: int) -> None:
    """An independent implementation, Gaussian weights and population covariances, cropped where its window leaves the volume."""
    rng = np.random.default_rng(seed)
    one = rng.random((depth, rows, columns))
    two = np.clip(one + rng.normal(0, 0.2, one.shape), 0, 1)
    theirs = structural_similarity(one, two, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    assert float(ssim_map(torch.from_numpy(one), torch.from_numpy(two)).mean()) == pytest.approx(theirs, abs=1e-9)


@given(cuts=st.lists(st.integers(1, 29), max_size=5, unique=True))
def test_slabs_add_up_to_the_volume(cuts: list[int]) -> None:
    """However a volume is sliced, its PSNR and SSIM are the same."""
    one, two = torch.from_numpy(_smooth((30, 12, 13))), torch.from_numpy(_smooth((30, 12, 13), 1))
    whole, parts = Comparison(), Comparison()
    whole.add(one, two)
    edges = [0, *sorted(cuts), 30]
    for start, stop in itertools.pairwise(edges):
        parts.add(one[start:stop], two[start:stop])
    assert parts.psnr == pytest.approx(whole.psnr, abs=1e-6)
    assert parts.ssim == pytest.approx(whole.ssim, abs=1e-6)
    assert whole.ssim == pytest.approx(float(ssim_map(one, two).mean()), abs=1e-6)


def test_a_volume_smaller_than_the_window_has_no_ssim() -> None:
    with pytest.raises(GeometryError, match="11"):
        ssim_map(torch.zeros(10, 11, 11), torch.zeros(10, 11, 11))


# ---- assembly ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "padded", "whole"), [((200, 300, 512), 24, 8), ((512, 512, 512), 64, 64), ((100, 512, 512), 16, 0)]
)
def test_a_partition_has_the_expected_number_of_superpatches(shape: tuple[int, int, int], padded: int, whole: int) -> None:
    assert len(SuperpatchGrid(edge="pad").starts(shape)) == padded
    assert len(SuperpatchGrid(edge="drop").starts(shape)) == whole


def test_partition_and_assembly_are_inverse() -> None:
    """Bit for bit."""
    volume = np.random.default_rng(0).integers(-1000, 1000, (1, 20, 33, 16)).astype(np.int16)
    boxes = ((start, cut(volume, start, 16, -1000)) for start in SuperpatchGrid(side=16).starts((20, 33, 16)))
    assert np.array_equal(assemble(boxes, (20, 33, 16), -1000), volume)


tilings = st.integers(2, 9).flatmap(lambda side: st.builds(Tiling, side=st.just(side), overlap=st.integers(0, side - 1)))


@given(tiling=tilings, size=st.integers(1, 40))
def test_weights_sum_to_one_at_every_voxel(tiling: Tiling, size: int) -> None:
    total = np.zeros(max(size, tiling.side))
    for start, weights in zip(tiling.starts(size), tiling.weights(size), strict=True):
        assert weights.min() > 0
        total[start : start + tiling.side] += weights
    assert np.allclose(total, 1, atol=1e-6)
    assert tiling.starts(size)[-1] + tiling.side >= size


@given(tiling=tilings, shape=st.tuples(st.integers(1, 2), st.integers(1, 14), st.integers(1, 14), st.integers(1, 14)))
def test_restoring_nothing_changes_nothing(tiling: Tiling, shape: tuple[int, int, int, int]) -> None:
    """The identity, whatever boxes there are: every slice once, in order."""
    volume = np.random.default_rng(0).random(shape, np.float32)
    slabs = list(restore_in_slabs(volume, UNIT, lambda x, number: x, tiling, 0))
    assert [s.start for s in slabs] == np.cumsum([0, *(s.unit_CDHW.shape[1] for s in slabs)])[:-1].tolist()
    assert np.allclose(np.concatenate([s.unit_CDHW for s in slabs], axis=1), volume, atol=1e-6)


def _seam(overlap: int) -> float:
    """The largest step between neighbouring voxels when boxes disagree by one about a flat volume."""
    flat = np.zeros((1, 24, 24, 24), np.float32)
    parts = restore_in_slabs(flat, UNIT, lambda x, number: x + number % 2, Tiling(side=16, overlap=overlap), 0)
    volume = np.concatenate([part.unit_CDHW for part in parts], axis=1)[0]
    return max(float(np.abs(np.diff(volume, axis=axis)).max()) for axis in range(3))


def test_overlapping_boxes_leave_no_seam() -> None:
    """Where boxes of 16 share 8 voxels a disagreement is spread over them, 1/9 a voxel; without blending it is a wall."""
    assert _seam(8) <= 1 / 9 + 1e-6
    blocks = restore_in_slabs(np.zeros((1, 32, 32, 32), np.float32), UNIT, lambda x, n: x + n % 2, Tiling(side=16, overlap=0), 0)
    walls = np.concatenate([part.unit_CDHW for part in blocks], axis=1)
    assert float(np.abs(np.diff(walls, axis=3)).max()) == 1


def test_a_memory_map_is_read_box_by_box(tmp_path: Path) -> None:
    """Only boxes are read, and they arrive in unit range, air beyond the border."""
    stored = np.memmap(tmp_path / "v", np.int16, "w+", shape=(1, 20, 20, 20))
    stored[:] = 1000
    seen = []

    def restore(x: torch.Tensor, number: int) -> torch.Tensor:
        seen.append((number, tuple(x.shape), float(x.max()), float(x.min())))
        return x

    volume = Volume(name="v", array_CDHW=stored, scaling=HU)
    list(restore_in_slabs(stored, HU, restore, Tiling(side=32, overlap=8), volume.air))
    assert seen == [(0, (1, 1, 32, 32, 32), 0.5, 0.0)]


def test_shifting_averages_what_is_fixed_to_the_grid_and_nothing_else() -> None:
    """A pattern of period 8 with mean 0 vanishes under shifts of 0 to 7; a restorer that is right stays right."""
    wave = torch.cos(2 * torch.pi * torch.arange(32) / 8)
    x = torch.from_numpy(_smooth((32, 32, 32)))[None, None]
    right = average_over_shifts(lambda y, number: y, (0, 3, 5))
    assert torch.allclose(right(x, 0), x, atol=1e-6)
    patterned = average_over_shifts(lambda y, number: y + wave, tuple(range(8)))
    assert torch.allclose(patterned(x, 0)[..., :24, :24, :24], x[..., :24, :24, :24], atol=1e-5)
    for wrong in ((1, 2), (0, -1)):
        with pytest.raises(GeometryError, match="shifts"):
            average_over_shifts(lambda y, number: y, wrong)


# ---- patterns ----------------------------------------------------------------------------------------------------


def _pattern(error: np.ndarray, patch: int = 8) -> float:
    meter = GridPattern((patch, patch))
    for slab in np.array_split(error.astype(np.float32), 3):
        meter.add(slab)
    return meter.ratio


@given(patch=st.sampled_from([4, 8, 16]), seed=st.integers(0, 20))
def test_noise_and_smooth_errors_have_no_pattern(patch: int, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 1, (16, 64, 80))
    assert _pattern(noise, patch) == pytest.approx(1, abs=0.4)
    assert _pattern(_smooth((16, 64, 80), seed), patch) < 1.5


@given(amplitude=st.floats(0.2, 1), harmonic=st.integers(1, 4), axis=st.integers(1, 2))
def test_a_pattern_on_the_grid_is_found_with_its_power(amplitude: float, harmonic: int, axis: int) -> None:
    """Against the closed form for white noise: a wave of amplitude a adds N a^2 / 4 x 2/3 (Hann) to one peak of four.

    A real wave at the highest frequency is its own mirror image and counts twice in amplitude.
    """
    noise = np.random.default_rng(1).normal(0, 1, (16, 64, 64))
    wave = amplitude * np.cos(2 * np.pi * harmonic * np.arange(64) / 8)
    found = _pattern(noise + wave.reshape([-1 if a == axis else 1 for a in range(3)]))
    gain = 64 * amplitude**2 / 4 * (4 if harmonic == 4 else 1) * (2 / 3)
    assert found == pytest.approx(1 + gain / 4, rel=0.25)


def test_a_pattern_on_another_grid_is_none() -> None:
    wave = np.cos(2 * np.pi * np.arange(64) / 64 * 11)
    noise = np.random.default_rng(1).normal(0, 1, (16, 64, 64))
    assert _pattern(noise + 3 * wave) < 1.3


def test_too_few_patches_are_refused() -> None:
    with pytest.raises(GeometryError, match="at least 4"):
        GridPattern((8, 8)).add(np.zeros((4, 24, 64), np.float32))
    with pytest.raises(GeometryError, match="at least 2"):
        GridPattern((1, 8))


# ---- methods -----------------------------------------------------------------------------------------------------

PROTOCOL = Protocol(tiling=Tiling(side=32, overlap=8))


def _volumes(count: int = 2) -> list[Volume]:
    arrays = [(_smooth((1, 40, 36, 44)[1:], seed)[None] * 2000).astype(np.int16) for seed in range(count)]
    return [Volume(name=str(n), array_CDHW=array, scaling=HU) for n, array in enumerate(arrays)]


def _figures(method: Method, volumes: list[Volume]) -> dict[str, Figure]:
    assert isinstance(method, Restorer)
    return {f.label: f for f in evaluate_volumes(method, volumes, PROTOCOL, 0.5).figures}


def test_every_protocol_of_a_masked_method_and_one_of_a_baseline() -> None:
    masked, plain = _figures(recipes.tiny().method.build(), _volumes()), _figures(recipes.ae_tiny().method.build(), _volumes())
    trivial = [f"unmasked {name}, {predictor}" for name in ("psnr", "ssim") for predictor in ("block mean", "dataset mean")]
    assert sorted(plain) == sorted(["unmasked pattern", "unmasked psnr", "unmasked ssim", *trivial])
    hidden = [f"hidden psnr, {name}" for name in ("dataset mean", "mean of visible", "distance-weighted mean")]
    assert set(masked) - set(plain) == {"hidden psnr", "masked pattern", "masked psnr", "masked ssim", *hidden}
    assert all(len(f.values) == 2 and all(map(math.isfinite, f.values)) for f in [*masked.values(), *plain.values()])
    assert masked["masked psnr"].compression == pytest.approx(4 * masked["unmasked psnr"].compression)
    assert masked["hidden psnr, mean of visible"].compression == pytest.approx(4)
    assert plain["unmasked psnr"].compression == pytest.approx(32)
    assert (plain["unmasked psnr, block mean"].compression, plain["unmasked psnr, dataset mean"].compression) == (512, math.inf)
    assert "compression 32:1" in str(plain["unmasked psnr"])
    assert "no code" in str(plain["unmasked psnr, dataset mean"])
    assert ", ".join(f"{value:.4g}" for value in plain["unmasked psnr"].values) in str(plain["unmasked psnr"])


def test_trivial_predictors_of_a_smooth_volume_are_in_their_order() -> None:
    """And the mean of the dataset and of blocks are what NumPy makes of them."""
    [volume] = volumes = _volumes(1)
    found = {name: figure.values[0] for name, figure in _figures(recipes.tiny().method.build(), volumes).items()}
    assert found["hidden psnr, distance-weighted mean"] > found["hidden psnr, mean of visible"]
    assert found["unmasked psnr, block mean"] > found["unmasked psnr, dataset mean"] + 3
    unit = volume.scaling.unit(volume.array_CDHW)
    assert found["unmasked psnr, dataset mean"] == pytest.approx(psnr(float(np.square(unit - 0.5).mean())), abs=1e-3)


def test_a_nearly_constant_volume_stands_apart() -> None:
    flat = Volume(name="flat", array_CDHW=np.full((1, 40, 36, 44), 900, np.int16), scaling=HU)
    method = recipes.ae_tiny().method.build()
    assert isinstance(method, Restorer)
    found = evaluate_volumes(method, [*_volumes(1), flat], PROTOCOL, 0.5)
    assert (found.volumes, found.near_constant) == (("0",), ("flat",))
    assert [f.label for f in found.figures] == [f.label for f in found.near_constant_figures]
    assert all(len(f.values) == 1 for f in (*found.figures, *found.near_constant_figures))
    lines = RestorationResult(dataset="d", split="test", found=found).lines
    assert (lines[0], "d, 1 volume of split test, nearly constant" in "\n".join(lines)) == ("d, 1 volume of split test:", True)


def test_spread_is_over_volumes() -> None:
    figure = Figure(name="psnr", values=(20.0, 22.0), compression=16)
    assert figure.mean == 21
    assert figure.spread == pytest.approx(math.sqrt(2))


@torch.no_grad()
def test_hidden_voxels_are_measured_separately() -> None:
    """A method that answers one constant: PSNR of hidden patches by hand."""
    network = recipes.tiny().method.build()
    assert isinstance(network, MaskedAutoencoder)
    network.restore = lambda x, ids: torch.full_like(x, 0.5)  # type: ignore[method-assign]
    boxes, x = MaskedBoxes(network, 0), torch.rand(1, 1, 32, 32, 32)
    boxes(x, 3)
    hidden = patchify(x, (8, 8, 8))[~visible_mask(boxes.ids(x, 3), 64)]
    assert boxes.psnr() == pytest.approx(psnr(float((hidden - 0.5).square().mean())), abs=1e-4)
    assert torch.equal(boxes.ids(x, 3), boxes.ids(x, 3))
    assert not torch.equal(boxes.ids(x, 3), boxes.ids(x, 4))


def test_a_perfect_method_is_perfect() -> None:
    row = measure(_volumes(1)[0], lambda x, number: x, PROTOCOL)
    assert row["psnr"] > 90
    assert row["ssim"] == pytest.approx(1, abs=1e-5)


def test_slices_are_in_hounsfield_units() -> None:
    x = _smooth((32, 32, 32))[None]
    network = recipes.tiny().method.build()
    assert isinstance(network, MaskedAutoencoder)
    shown = panels(network, x, HU)
    assert list(shown) == ["before", "masked", "reconstructed", "error"]
    assert np.allclose(shown["before"], x[0, 16] * 2000 - 1000, atol=1e-3)
    assert np.allclose(shown["error"], shown["reconstructed"] - shown["before"], atol=1e-3)
    hidden = shown["masked"] != shown["before"]
    assert 0.5 < hidden.mean() < 0.95
    assert (shown["masked"][hidden] == -1000).all()
    assert "masked" not in panels(recipes.ae_tiny().method.build(), x, HU)  # type: ignore[arg-type]


def test_a_method_that_restores_nothing_is_told_so() -> None:
    config = replace(recipes.tiny().method, norm_pix=True)  # type: ignore[call-arg]
    with pytest.raises(RunError, match="norm_pix"):
        evaluate_volumes(config.build(), _volumes(1), PROTOCOL, 0.5)  # type: ignore[arg-type]
