"""ResNets of one definition: names, sizes, both ranks, plain views and published checkpoints."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.backbones.resnet import Operator, ResNet, ResNetSettings, extract_published_weights
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.plain import convert_to_plain_2d, convert_to_plain_3d
from crossdim.training.layers.recompute import enable_recomputation
from crossdim.training.layers.rotation import RotationNet
from tests.oracles.crossd_fft import transcribed


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _network(operator: Operator = "crossd", *, depth: int = 18, width: int = 4, classes: int = 5) -> ResNet:
    torch.manual_seed(0)
    settings = ResNetSettings(operator=operator, depth=depth, base_width=width, in_channels=3)  # type: ignore[arg-type]
    return ResNet(settings, classes)


def _points(network: nn.Module) -> int:
    """Parameters of the rotation nets that published layers of one tap have, without effect."""
    layers = [m for m in network.modules() if isinstance(m, CrossDConv) and m.geometry.is_point]
    return sum(_count(RotationNet(layer.in_channels)) for layer in layers)


@pytest.mark.parametrize(
    ("classes", "counts"), [(1000, (11_689_512, 33_716_904, 33_780_712)), (165, (11_261_157, 33_288_549, 33_352_357))]
)
@pytest.mark.integration
def test_parameters_are_as_many_as_published(classes: int, counts: tuple[int, int, int]) -> None:
    """The published Cross-D network counts 7,516 that never had a gradient."""
    flat, solid, both = (_network(operator, width=64, classes=classes) for operator in ("conv2d", "conv3d", "crossd"))
    assert _points(both) == 7_516
    assert (_count(flat), _count(solid), _count(both) + _points(both)) == counts
    rotation = sum(_count(m) for m in both.modules() if isinstance(m, RotationNet))
    assert rotation + _points(both) == 63_808


def test_resnet_50_has_torchvisions_parameters() -> None:
    assert _count(_network("conv2d", depth=50, width=64, classes=1000)) == 25_557_032


@pytest.mark.parametrize(("depth", "blocks", "convolutions"), [(18, (2, 2, 2, 2), 2), (50, (3, 4, 6, 3), 3)])
def test_names_are_torchvisions(depth: int, blocks: tuple[int, ...], convolutions: int) -> None:
    """Written down from torchvision's naming, so that its weights load."""

    def norm(name: str) -> set[str]:
        return {f"{name}.{end}" for end in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}

    names = {"conv1.weight", "fc.weight", "fc.bias"} | norm("bn1")
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            for i in range(1, convolutions + 1):
                names |= {f"layer{stage}.{block}.conv{i}.weight"} | norm(f"layer{stage}.{block}.bn{i}")
        if stage > 1 or convolutions == 3:
            names |= {f"layer{stage}.0.downsample.0.weight"} | norm(f"layer{stage}.0.downsample.1")
    assert set(_network("conv2d", depth=depth).state_dict()) == names


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("operator", ["conv2d", "conv3d", "crossd"])
def test_pyramids_have_the_ranks_of_their_inputs(operator: Operator, depth: int) -> None:
    """The encoder of the hybrid method: one module, images and volumes."""
    settings = ResNetSettings(operator=operator, depth=depth, base_width=4)  # type: ignore[arg-type]
    encoder = settings.encoder().eval()
    for sides in ((64, 96), (32, 64, 64)):
        if operator != "crossd" and len(sides) != {"conv2d": 2, "conv3d": 3}[operator]:
            continue
        x = torch.randn(2, 1, *sides)
        maps = encoder.pyramid(x)
        for width, level, y in zip(settings.pyramid_widths, range(1, 6), maps, strict=True):
            assert y.shape == (2, width, *(side // 2**level for side in sides))
        assert torch.equal(encoder(x), maps[-1])
        assert maps[-1].shape[1] == settings.num_features


def test_the_decoder_of_every_backbone_follows() -> None:
    settings = ResNetSettings(base_width=2)
    levels = settings.decoder()(settings.encoder()(torch.randn(1, 1, 32, 32, 64)))
    assert [tuple(level.shape[1:]) for level in levels] == [(8, 8, 8, 16), (4, 16, 16, 32), (2, 32, 32, 64)]


def test_images_and_volumes_train_one_set_of_weights() -> None:
    network = _network()
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    flat = network.conv1.weights_3d.grad.clone()
    network(torch.randn(2, 3, 32, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert not torch.equal(network.conv1.weights_3d.grad, flat)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("rank", [4, 5])
@pytest.mark.integration
def test_plain_views_are_exported_and_equal(depth: int, rank: int) -> None:
    """A plain Conv2d network with synthesised kernels, and a plain Conv3d network, out of the same weights."""
    network = _network(depth=depth).double().eval()
    x = torch.randn(1, 3, *(32, 64, 64)[5 - rank :], dtype=torch.float64)
    plain = convert_to_plain_3d(network) if rank == 5 else convert_to_plain_2d(network, x)
    assert not any(isinstance(m, CrossDConv | RotationNet) for m in plain.modules())
    assert all(type(m).__module__.startswith(("torch.nn.", "crossdim.training.backbones.")) for m in plain.modules())
    with torch.no_grad():
        expected = network(x)
        assert expected.std() > 1e-3
        assert torch.allclose(plain(x), expected, rtol=1e-10, atol=1e-12)
        program = torch.export.export(plain, (x,))
        assert torch.allclose(program.module()(x), expected, rtol=1e-10, atol=1e-12)
    names = set(ResNet(ResNetSettings(depth=depth, operator="conv2d"), 1).state_dict())  # type: ignore[arg-type]
    assert set(plain.state_dict()) == names


def test_blocks_can_be_recomputed_around_layers_that_recompute() -> None:
    """Outputs, gradients and statistics stay; a batch is counted once by every batch norm."""
    network, x = _network(), torch.randn(2, 3, 64, 64)
    other = copy.deepcopy(network)
    for unit in other.units():
        enable_recomputation(unit)
    for one in (network, other):
        one(x).square().sum().backward()
    state = other.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.integration
def test_the_whole_network_is_exported() -> None:
    network = _network().eval()
    for sides in ((64, 64), (32, 32, 32)):
        x = torch.randn(2, 3, *sides)
        program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2, max=8)},))
        assert torch.allclose(program.module()(torch.cat([x, x])), network(torch.cat([x, x])), atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_a_whole_network_is_its_transcription(training: bool) -> None:
    """Outputs and the gradients of all weights, 20 layers deep; batch norms remember the same."""
    paper = _network().double().train(training)
    for module in paper.modules():
        if isinstance(module, CrossDConv):
            module.mode = "paper"
    other = transcribed(copy.deepcopy(paper))
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    found, expected = paper(x), other(x)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-10)
    found.square().sum().backward()
    expected.square().sum().backward()
    theirs = {name.replace(".net.", ".rotation_params."): p for name, p in other.named_parameters()}
    for name, p in paper.named_parameters():
        assert p.grad is not None
        scale = theirs[name].grad.abs().max().item()
        assert torch.allclose(p.grad, theirs[name].grad, rtol=0, atol=1e-9 * max(1.0, scale)), name
    state = {name.replace(".net.", ".rotation_params."): t for name, t in other.state_dict().items()}
    assert all(torch.allclose(t, state[name], atol=1e-10) for name, t in paper.state_dict().items())


def test_published_checkpoints_load_and_are_centered() -> None:
    """A document as the authors write it: under ``model``, compiled names, a rotation net in every layer. Source: section 1.3."""
    network = _network().eval()
    state: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        state[f"_orig_mod.{name}"] = tensor
    for name, module in network.named_modules():
        if isinstance(module, CrossDConv) and module.geometry.is_point:
            for key, tensor in RotationNet(module.in_channels).state_dict().items():
                state[f"_orig_mod.{name}.rotation_params.{key}"] = tensor
    file = io.BytesIO()
    torch.save({"model": state}, file)
    file.seek(0)

    loaded = _network().eval()
    for p in loaded.parameters():
        p.data.zero_()
    for module in loaded.modules():
        if isinstance(module, CrossDConv):
            module.mode = "paper"
    loaded.load_state_dict(extract_published_weights(torch.load(file, weights_only=True)))
    assert torch.equal(loaded.layer1[0].conv1.weights_3d, network.layer1[0].conv1.weights_3d)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = loaded(x)
        for module in loaded.modules():
            if isinstance(module, CrossDConv):
                module.center()
        assert torch.allclose(loaded(x), before, atol=1e-5)


def test_settings_that_make_no_network_are_refused() -> None:
    with pytest.raises(GeometryError, match="depth 18 or 50"):
        ResNetSettings(depth=34)  # type: ignore[arg-type]
