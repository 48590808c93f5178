"""Trained encoders that feed themselves, held against what training and evaluation feed them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import crossdim
from crossdim import Dataset, Encoder, Pseudo3D
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import GeometryError, RunError, StorageError
from crossdim.training.backbones import BACKBONES, build_encoder, serialise_encoder
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.data.dataset import open_dataset
from crossdim.training.evaluation.features import BATCH, compute_features, read_labelled
from crossdim.training.layers.statistics import recompute_statistics
from crossdim.training.recipes import recipe
from tests.training.published import as_image, images, publish

pytestmark = pytest.mark.integration


METHODS = ("cdssl-p3d:tiny", "cross-d:tiny", "maesil:tiny")


@pytest.fixture(scope="module")
def xr(image_data: Bucket) -> Dataset:
    return crossdim.open(image_data.url)


@pytest.fixture(scope="module")
def ct(volume_data: Bucket) -> Dataset:
    return crossdim.open(volume_data.url)


def encoder_of(name: str, folder: Path, pseudo3d: Pseudo3D | None = None) -> Encoder:
    """An untrained encoder, by way of the file that a run writes."""
    torch.manual_seed(0)
    config = recipe(name).method
    method = config.build()
    seen = config.encoder_geometry(pseudo3d)
    spec = dataclasses.replace(method.encoder_spec, pseudo3d=dataclasses.asdict(seen) if seen else None)
    (folder / "encoder.pt").write_bytes(serialise_encoder(method.encoder.state_dict(), spec))
    return crossdim.load_encoder(folder)


def plain(in_channels: int = 1, **spec: object) -> Encoder:
    """A small encoder whose norms stay inside a sample."""
    torch.manual_seed(1)
    settings = BACKBONES["unet3d"](base_width=4, norm="gn", in_channels=in_channels)
    made = dataclasses.replace(EncoderSpec.of(settings), pseudo3d=dataclasses.asdict(Pseudo3D()), **spec)
    return Encoder(build_encoder(made), made)


def cosines(one: torch.Tensor, other: np.ndarray | torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.double(), torch.as_tensor(other).double(), dim=1).min())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("which", ["flat", "solid"])
def test_features_are_those_of_evaluation(name: str, which: str, image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    """Given the pixels that evaluation resizes a sample to, and batch-norm statistics of the same inputs."""
    dataset = open_dataset(image_data if which == "flat" else volume_data)
    config = recipe(name).method
    encoder = encoder_of(name, tmp_path, Pseudo3D())
    data = read_labelled(dataset, config)
    assert data is not None
    expected = compute_features(encoder.module, data.x_NC)

    parts = torch.from_numpy(data.x_NC[np.random.default_rng(0).permutation(len(data.x_NC))])
    fresh = recompute_statistics(encoder.module, lambda copy: copy, parts.tensor_split(-(-len(parts) // BATCH)))
    found = Encoder(fresh, encoder.spec).embed(targets(config, dataset))
    assert found.shape == (len(dataset), encoder.num_features)
    assert cosines(found, expected) > 1 - 1e-6
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)


def targets(config, dataset) -> torch.Tensor:
    """The whole samples at the size that the encoder was trained on, in unit range, neither normalised nor unrolled."""
    from PIL import Image

    from crossdim.training.data.dataset import read_sample
    from crossdim.training.data.range_reader import open_range_reader
    from crossdim.training.data.views import image_of

    reader, found = open_range_reader(dataset.bucket), []
    for number in range(len(dataset)):
        sample = read_sample(dataset, number, reader)
        target = config.whole(sample, dataset.pseudo3d)["target"]
        if dataset.pseudo3d and target.ndim == 4:  # unrolled: the square before that
            side = config.flat.global_side if hasattr(config, "flat") else config.crops.flat_side
            image = Image.fromarray(image_of(sample, dataset.pseudo3d))
            target = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))[None]
        found.append(target)
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_its_batch_its_dataset_and_its_pixels_are_one_input(name: str, xr: Dataset, ct: Dataset, tmp_path: Path) -> None:
    """Whatever the form, and whatever an image shares a batch with: it is embedded without the zeros behind its ends."""
    encoder = encoder_of(name, tmp_path, Pseudo3D())
    for dataset in (xr, ct):
        expected = torch.cat([encoder.embed(dataset[i]) for i in range(6)])
        (batch,) = (batch for batch in dataset.loader(6, shuffle=False) if batch["key"][0] == dataset[0].key)
        assert torch.allclose(encoder.embed(batch), expected, atol=1e-5)
        assert torch.allclose(encoder.embed(dataset)[:6], expected, atol=1e-5)
        assert torch.allclose(encoder.embed([dataset[i] for i in range(6)]), expected, atol=1e-5)
    cube = ct[0].unit()
    for volume, axes in ((cube, None), (cube[0], None), (cube[None], None), (torch.from_numpy(cube[0]), "DHW")):
        assert torch.allclose(encoder.embed(volume, axes=axes), encoder.embed(ct[0]), atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_an_image_and_its_stored_view_are_one_input(name: str, xr: Dataset, tmp_path: Path) -> None:
    """However it is stored, and however many axes it is given with."""
    encoder = encoder_of(name, tmp_path, Pseudo3D())
    publish(Bucket(str(tmp_path / "plain")), [as_image(sample) for sample in images(3)], "plain", {"images": {}})
    for stored, sample in zip(crossdim.open(tmp_path / "plain"), xr, strict=False):
        expected = encoder.embed(sample)
        image = stored.unit()
        for given in (stored, image, image[0], image[None], torch.from_numpy(image)):
            assert torch.allclose(encoder.embed(given), expected, atol=1e-4)
        assert cosines(encoder.embed(np.repeat(image, 3, axis=0)), expected) > 1 - 1e-6  # gray in three channels


def test_a_view_of_another_geometry_is_folded_back(tmp_path: Path) -> None:
    encoder = plain()
    image = np.random.default_rng(0).random((1, 64, 64), np.float32)
    view = torch.from_numpy(crossdim.unroll(image, Pseudo3D(window=2, stride=2)))
    batch = {"image": view[None], "size": torch.tensor([view.shape[1:]]), "pseudo3d": [Pseudo3D(window=2, stride=2)]}
    assert torch.allclose(encoder.embed(batch), encoder.embed(image), atol=1e-6)
    batch["pseudo3d"] = [Pseudo3D(window=4, stride=2)]
    with pytest.raises(GeometryError, match="cannot be folded exactly"):
        encoder.embed(batch)


def test_zeros_are_added_behind_the_ends_after_normalisation() -> None:
    encoder = plain()
    volume = torch.rand(1, 20, 33, 16) * 4 + 7
    expected = torch.zeros(1, 1, 32, 48, 16)
    expected[0, :, :20, :33] = (volume - volume.mean()) / volume.std(correction=0)
    assert encoder.spec.side_multiple == 8
    expected = expected[:, :, :24, :40]
    assert torch.allclose(encoder.prepare(volume), expected, atol=1e-5)
    image = torch.rand(1, 70, 64)
    prepared = encoder.prepare(image)
    assert prepared.shape == (1, 1, 16, 24, 16)  # 96 rows are 24 windows of 4
    padded = torch.zeros(1, 96, 64)
    padded[:, :70] = (image - image.mean()) / image.std(correction=0)
    assert torch.allclose(prepared[0], crossdim.unroll(padded), atol=1e-5)


@pytest.mark.parametrize("geometry", [Pseudo3D(window=4, stride=2), Pseudo3D(window=3, stride=2, padding=1), Pseudo3D(window=5)])
@pytest.mark.parametrize("side", [5, 31, 64])
def test_any_image_tiles_once_it_is_filled_up(geometry: Pseudo3D, side: int) -> None:
    encoder = plain()
    encoder = Encoder(encoder.module, dataclasses.replace(encoder.spec, pseudo3d=dataclasses.asdict(geometry)))
    prepared = encoder.prepare(torch.rand(1, side, 64))
    assert all(n % 8 == 0 for n in prepared.shape[2:])
    assert (prepared.shape[3] - 8) * geometry.stride < side + geometry.window  # and by no more than it takes


def test_a_constant_input_is_zeros() -> None:
    assert plain().prepare(np.full((16, 16, 16), 0.3, np.float32)).abs().max() < 1e-6


def test_units_are_refused_where_they_would_matter(ct: Dataset, tmp_path: Path) -> None:
    encoder = plain()
    assert cosines(encoder.embed(ct[0].physical()), encoder.embed(ct[0])) > 1 - 1e-6
    unit_range = encoder_of("maesil:tiny", tmp_path)
    with pytest.raises(GeometryError, match=r"unit range, 0\.\.1; found -[0-9]{3}"):
        unit_range.embed(ct[0].physical())


def test_no_gradients_and_evaluation_mode_whatever_the_mode(ct: Dataset, tmp_path: Path) -> None:
    encoder = encoder_of("cdssl-p3d:tiny", tmp_path, Pseudo3D())
    expected = encoder.embed(ct[0])
    encoder.module.train()
    frozen = next(layer for layer in encoder.module.modules() if isinstance(layer, torch.nn.BatchNorm3d)).eval()
    found = encoder.embed(ct[0])
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert (encoder.module.training, frozen.training) == (True, False)
    torch.nn.Linear(found.shape[1], 2)(found).sum().backward()  # and may be learnt from


def test_what_is_prepared_may_be_trained_on(ct: Dataset) -> None:
    encoder = plain()
    (batch,) = ct.loader(20, crop=(16, 16, 16))
    encoder.module(encoder.prepare(batch)).flatten(2).mean(2).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.module.parameters())


def test_statistics_are_those_of_the_kind_of_input(xr: Dataset, ct: Dataset) -> None:
    """Of norms that keep images and volumes apart; also where both are in one list."""
    torch.manual_seed(0)
    settings = BACKBONES["unet3d"](base_width=4, norm="dual_bn")
    spec = dataclasses.replace(EncoderSpec.of(settings), pseudo3d=dataclasses.asdict(Pseudo3D()))
    encoder = Encoder(build_encoder(spec).eval(), spec)
    for layer in encoder.module.modules():
        if hasattr(layer, "selected"):
            layer.running_mean[1] += 1
            layer.running_var[1] *= 3
    mixed = encoder.embed([xr[0], ct[0], xr[1], ct[1]])
    for number, sample in enumerate((xr[0], ct[0], xr[1], ct[1])):
        assert torch.allclose(mixed[number], encoder.embed(sample)[0], atol=1e-5)
    view = {"image": torch.from_numpy(ct[0].unit())[None], "size": torch.tensor([[64, 64, 64]]), "pseudo3d": [Pseudo3D()]}
    with pytest.raises(GeometryError):
        encoder.embed({**view, "pseudo3d": [Pseudo3D(window=2, stride=2)]})
    assert not torch.allclose(encoder.embed(view), encoder.embed(ct[0]), atol=1e-3)


def test_axes_are_told_apart_or_named() -> None:
    encoder = plain()
    for shape, axes in {
        (32, 32): "HW",
        (1, 32, 32): "CHW",
        (3, 32, 32): "CHW",
        (16, 32, 32): "DHW",
        (5, 1, 32, 32): "BCHW",
        (1, 1, 32, 32): "BCHW",
        (1, 16, 32, 32): "CDHW",
        (2, 1, 16, 32, 32): "BCDHW",
    }.items():
        data = np.random.default_rng(0).random(shape, np.float32)
        assert torch.equal(encoder.embed(data), encoder.embed(data, axes=axes))
        assert len(encoder.embed(data)) == (shape[0] if "B" in axes else 1)
    for shape in ((4, 16, 32, 32), (8,)):
        with pytest.raises(GeometryError, match="cannot be told apart by 1 channels; name them with axes="):
            encoder.embed(np.zeros(shape, np.float32))
    with pytest.raises(GeometryError, match=r"unknown order of axes 'HWD'; did you mean HW"):
        encoder.embed(np.zeros((16, 16, 16)), axes="HWD")
    with pytest.raises(GeometryError, match="name 3 axes; the array has 2"):
        encoder.embed(np.zeros((16, 16)), axes="DHW")


def test_what_does_not_fit_is_refused(xr: Dataset, ct: Dataset) -> None:
    encoder = plain()
    volumes_only = Encoder(encoder.module, dataclasses.replace(encoder.spec, pseudo3d=None))
    with pytest.raises(GeometryError, match="trained on volumes alone"):
        volumes_only.embed(xr[0])
    with pytest.raises(GeometryError, match=r"takes 1 channels; found \(2, 16, 16, 16\)"):
        encoder.embed(np.zeros((1, 2, 16, 16, 16)))
    with pytest.raises(GeometryError, match="inputs of one size and kind"):
        encoder.prepare([xr[0], ct[0]])
    with pytest.raises(GeometryError, match="pseudo3d is missing"):
        encoder.embed({"image": torch.zeros(1, 1, 16, 16, 16), "size": torch.tensor([[16, 16, 16]])})
    with pytest.raises(GeometryError, match="a sample or a batch says itself"):
        encoder.embed(ct[0], axes="CDHW")
    with pytest.raises(RunError, match="unknown normalisation 'minmax'"):
        plain(normalisation="minmax")
    assert encoder.embed([]).shape == (0, encoder.num_features)


def test_it_is_loaded_from_a_run_or_from_its_file(tmp_path: Path, s3_endpoint: str, s3_client) -> None:
    encoder = encoder_of("cdssl-p3d:tiny", tmp_path, Pseudo3D())
    data = (tmp_path / "encoder.pt").read_bytes()
    s3_client.create_bucket(Bucket="runs")
    s3_client.put_object(Bucket="runs", Key="a/encoder.pt", Body=data)
    s3_client.put_object(Bucket="runs", Key="moved [1].pt", Body=data)
    remote = {"endpoint_url": s3_endpoint, "access_key": "k", "secret_key": "s", "region": "us-east-1"}
    volume = np.random.default_rng(0).random((16, 16, 16), np.float32)
    expected = encoder.embed(volume)
    for url, options in (
        (tmp_path / "encoder.pt", {}),
        (str(tmp_path), {}),
        ("s3://runs/a", remote),
        ("s3://runs/a/encoder.pt", remote),
        ("s3://runs/moved [1].pt", remote),
    ):
        assert torch.equal(crossdim.load_encoder(url, **options).embed(volume), expected)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match=r"empty/encoder\.pt does not exist; a run writes encoder\.pt with its first"):
        crossdim.load_encoder(tmp_path / "empty")
    (tmp_path / "bad.pt").write_bytes(data[:-100])
    with pytest.raises((StorageError, RunError), match=r"bad\.pt"):
        crossdim.load_encoder(tmp_path / "bad.pt")


def test_it_shows_itself(tmp_path: Path) -> None:
    assert repr(encoder_of("cdssl-p3d:tiny", tmp_path, Pseudo3D())).startswith("Encoder unet3d: 1 channels to ")
    assert "images unrolled, window 4 at stride 4" in repr(plain())
    assert "images as they are" in repr(encoder_of("cross-d:tiny", tmp_path))
    assert "images not taken" in repr(encoder_of("maesil:tiny", tmp_path))


@pytest.mark.parametrize("data", ["data/xr", Path("data/xr"), 3, b"data"], ids=["text", "path", "number", "bytes"])
def test_a_path_is_no_input(data: object) -> None:
    with pytest.raises(TypeError, match=r"crossdim\.open\(URL\) opens a dataset"):
        plain().embed(data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_have_no_features(value: float) -> None:
    volume = np.zeros((32, 32, 32), np.float32)
    volume[3, 4, 5] = value
    with pytest.raises(GeometryError, match="NaN or infinite"):
        plain().embed(volume)
