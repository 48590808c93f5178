"""Conversion of 2D networks: what is kept, what volumes see, and what is refused."""

from __future__ import annotations

import copy
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from crossdim.storage_schema.errors import DocumentError, GeometryError
from crossdim.training.backbones.resnet import ResNet, ResNetSettings
from crossdim.training.layers import anyrank
from crossdim.training.layers.convert import Target, convert
from crossdim.training.layers.plain import convert_to_plain_2d, convert_to_plain_3d

TARGETS = get_args(Target)
ANY_RANK = ("crossd", "acs", "soft_acs", "mean_acs")


def _filled(model: nn.Module) -> nn.Module:
    """As if trained: statistics and affine maps away from their defaults."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.data = drawn + 0.5 if "var" in name or (name.endswith("weight") and tensor.ndim == 1) else drawn - 0.5
    return model.eval()


def _zoo() -> nn.Module:
    """One of everything that is mapped."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3, padding_mode="replicate"),
        nn.BatchNorm2d(6, eps=1e-3, momentum=0.3),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding="same", dilation=2, bias=False),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.GroupNorm(2, 6),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(6, 4, 1, padding="valid"),
        nn.AvgPool2d(2, stride=1, count_include_pad=False),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Dropout2d(0.5),
        nn.AdaptiveMaxPool2d(4),
        nn.Upsample(scale_factor=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
    )


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("to", ANY_RANK)
def test_images_see_the_network_that_was_converted(to: Target) -> None:
    """Pretrained weights and batch norm are kept identically for every operator; Cross-D begins unturned."""
    for model in (_zoo().double(), ResNet(ResNetSettings(operator="conv2d", base_width=4, in_channels=3), 5).double()):
        model, x = _filled(model), _random(2, 3, 40, 40)
        converted = convert(model, to=to)
        assert isinstance(converted, type(model))
        assert torch.allclose(converted(x), model(x), rtol=1e-11, atol=1e-11)


def test_cross_d_in_paper_mode_begins_unturned_too() -> None:
    """Section 2.5: the embedding is rolled by one tap along every axis."""
    model, x = _filled(_zoo().double()), _random(2, 3, 40, 40)
    assert torch.allclose(convert(model, to="crossd", mode="paper")(x), model(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("to", TARGETS)
def test_volumes_pass_through_every_target_and_train(to: Target) -> None:
    converted = convert(_zoo(), to=to).train()
    x = torch.randn(2, 3, 12, 16, 20, requires_grad=True)
    y = converted(x)
    assert y.shape == (2, 6 * 2**3)
    y.square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("to", TARGETS)
def test_state_and_flags_are_kept(to: Target) -> None:
    """Names, values and types of norms and biases; frozen stays frozen, training stays training."""
    model = _filled(ResNet(ResNetSettings(operator="conv2d", base_width=4), 5)).double()
    model.layer1.requires_grad_(False)
    model.layer2.train()
    before = copy.deepcopy(model.state_dict())
    converted = convert(model, to=to)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    state = converted.state_dict()
    kept = [name for name in before if ".bn" in name or name.startswith(("bn", "fc")) or "downsample.1" in name]
    assert len(kept) > 50
    assert all(torch.equal(state[name], before[name]) for name in kept)
    if to in ("acs", "mean_acs"):
        assert list(state) == list(before)
    assert all(p.dtype == torch.float64 for p in converted.parameters())
    assert not any(p.requires_grad for p in converted.layer1.parameters())
    assert all(p.requires_grad for p in converted.layer2.parameters())
    assert converted.layer2[0].conv1.training
    assert not converted.layer3[0].conv1.training
    converted.bn1.weight.data.zero_()
    assert torch.equal(model.bn1.weight, before["bn1.weight"])


def test_i3d_conversion_sees_a_constant_volume_as_an_image() -> None:
    """Through a whole network without padding along depth, so without borders."""
    model = _filled(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3)).double())
    x = _random(1, 2, 12, 12)
    volume = x[:, :, None].expand(-1, -1, 12, -1, -1)
    solid = convert(model, to="conv3d")(volume)
    assert torch.allclose(solid, model(x)[:, :, None].expand_as(solid), atol=1e-11)


def test_centre_inflation_and_25d_see_every_slice_as_an_image() -> None:
    model = _filled(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)).double()
    )
    x = _random(1, 2, 5, 6, 6)
    slices = torch.stack([model(x[:, :, d]) for d in range(5)], dim=2)
    assert torch.allclose(convert(model, to="conv3d", inflation="centre")(x), slices, atol=1e-11)
    assert torch.allclose(convert(model, to="conv25d")(x), slices, atol=1e-11)
    assert torch.allclose(convert(model, to="crossd")(x), slices, atol=1e-11)


def test_acs_is_a_3d_network_with_acs_inflation() -> None:
    model, x = _filled(_zoo().double()), _random(1, 3, 12, 16, 20)
    assert isinstance(model, nn.Sequential)
    model = model[:10]  # what follows is a transposed convolution, whose cube is the centre's with conv3d
    acs, embedded = convert(model, to="acs"), convert(model, to="conv3d", inflation="acs")
    assert torch.allclose(acs(x), embedded(x), atol=1e-11)


def test_a_module_used_twice_stays_one() -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    converted = convert(nn.Sequential(shared, nn.ReLU(), shared), to="acs")
    assert isinstance(converted, nn.Sequential)
    assert converted[0] is converted[2]


def test_a_lone_layer_is_converted() -> None:
    assert type(convert(nn.Conv2d(3, 4, 3), to="conv3d")) is nn.Conv3d


def test_everything_that_cannot_be_converted_is_named_at_once() -> None:
    hooked = nn.Conv2d(3, 3, 3)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.ModuleDict(
        {
            "flat": nn.Conv2d(3, 3, (3, 5)),
            "even": nn.Conv2d(3, 3, 4, padding="same"),
            "indices": nn.MaxPool2d(2, return_indices=True),
            "divisor": nn.AvgPool2d(2, divisor_override=3),
            "sharp": nn.Upsample(scale_factor=2, mode="bicubic"),
            "shuffle": nn.PixelShuffle(2),
            "power": nn.LPPool2d(2, 3),
            "normed": nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3)),
            "hooked": hooked,
            "fine": nn.Conv2d(3, 3, 3),
        }
    )
    with pytest.raises(DocumentError) as caught:
        convert(model, to="acs")
    assert {problem.loc for problem in caught.value.problems} == set(model) - {"fine"}
    assert "kernel (3, 5) differs between rows and columns" in str(caught.value)
    with pytest.raises(GeometryError, match="unknown target 'acsconv'; did you mean"):
        convert(nn.ReLU(), to="acsconv")  # type: ignore[arg-type]


def test_any_rank_modules_are_torchs_own() -> None:
    flat, solid = torch.randn(2, 4, 9, 10), torch.randn(2, 4, 8, 9, 10)
    pool, mean = anyrank.MaxPool(3, stride=2, padding=1, ceil_mode=True), anyrank.AvgPool(3, padding=1)
    assert torch.equal(pool(flat), functional.max_pool2d(flat, 3, 2, 1, ceil_mode=True))
    assert torch.equal(pool(solid), functional.max_pool3d(solid, 3, 2, 1, ceil_mode=True))
    assert torch.equal(mean(flat), functional.avg_pool2d(flat, 3, 3, 1))
    assert torch.equal(mean(solid), functional.avg_pool3d(solid, 3, 3, 1))
    assert torch.equal(anyrank.AdaptivePool(2, maximum=True)(solid), functional.adaptive_max_pool3d(solid, 2))
    enlarged = functional.interpolate(solid, scale_factor=2, mode="trilinear", align_corners=True)
    assert torch.equal(anyrank.Upsample(2, linear=True, align_corners=True)(solid), enlarged)
    with pytest.raises(GeometryError, match=r"found \(4, 9, 10\)"):
        anyrank.BatchNorm(4)(flat[0])


@pytest.mark.parametrize("rank", [4, 5])
def test_plain_networks_are_torch_alone_and_equal(rank: int) -> None:
    """Both views of one set of weights, everything that Cross-D networks hold included."""
    network = convert(_filled(_zoo().double()), to="crossd")
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.out_channels == 4 and module.in_channels == 16:
            module.weight.data = _random(4, 16, 1, 1)  # turn
    x = _random(1, 3, *(12, 40, 40)[5 - rank :])
    expected = network(x)
    plain = convert_to_plain_3d(network) if rank == 5 else convert_to_plain_2d(network, x)
    assert torch.allclose(plain(x), expected, rtol=1e-11, atol=1e-11)
    assert all(type(module).__module__.startswith("torch.nn.") for module in plain.modules())
    if rank == 4:
        with torch.no_grad():
            assert (network(x) - convert(_filled(_zoo().double()), to="crossd")(x)).abs().max() > 1e-4
