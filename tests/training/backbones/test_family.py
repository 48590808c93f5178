"""What every backbone must keep to, and that one method trains them all."""

from __future__ import annotations

import io
import itertools
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones import BACKBONES, load_encoder, serialise_encoder
from crossdim.training.backbones.base import BackboneSettings, EncoderSpec
from crossdim.training.backbones.resenc import ResEncSettings
from crossdim.training.backbones.swin3d import Swin3DSettings
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.backbones.vit3d import ViT3DSettings
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.data.collate import Batch
from crossdim.training.layers.recompute import enable_recomputation
from crossdim.training.methods.base import Step, total_of
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.methods.pyramid import PyramidNet

SMALL: list[BackboneSettings] = [
    UNet3DSettings(base_width=4),
    ResEncSettings(features_per_stage=(4, 6, 8, 12, 16, 16), blocks_per_stage=(1, 1, 2, 1, 1, 2), level_widths=(16, 8, 8)),
    ViT3DSettings(width=24, depth=2, heads=2, level_widths=(16, 8, 8)),
    Swin3DSettings(width=8, depths=(2, 2, 2), heads=(1, 2, 4), window=(2, 3, 3), level_widths=(16, 8, 8)),
]
SHAPES = [(16, 32, 32), (16, 24, 24), (8, 16, 16), (16, 8, 8)]
backbones = pytest.mark.parametrize("settings", SMALL, ids=[s.kind for s in SMALL])


def _parts(settings: BackboneSettings) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([settings.encoder(), settings.decoder()])


def _livened(parts: nn.ModuleList) -> nn.ModuleList:
    """Every vector moved a little: scales that start at zero would hide what is behind them."""
    for p in parts.parameters():
        if p.ndim < 2:
            nn.init.normal_(p, p.detach().mean().item(), 0.2)
    return parts


def _levels(parts: nn.ModuleList, x: Tensor) -> list[Tensor]:
    encoder, decoder = parts
    levels: list[Tensor] = decoder(encoder(x))
    return levels


def _loss(levels: list[Tensor]) -> Tensor:
    return torch.stack([level.float().square().mean() for level in levels]).sum()


@backbones
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.integration
def test_levels_are_three_and_the_last_has_the_size_of_the_input(settings: BackboneSettings, shape: tuple[int, int, int]) -> None:
    parts = _parts(settings)
    deepest = parts[0](torch.randn(2, 1, *shape))
    sides = [side // r for side, r in zip(shape, settings.reduction, strict=True)]
    assert deepest.shape == (2, settings.num_features, *sides)
    levels = parts[1](deepest)
    assert [level.shape[1] for level in levels] == list(settings.level_widths)
    for level, scale in zip(levels, (4, 2, 1), strict=True):
        assert list(level.shape[2:]) == [side // min(r, scale) for side, r in zip(shape, settings.reduction, strict=True)]


@backbones
def test_a_cube_of_side_8_gives_features_or_is_refused(settings: BackboneSettings) -> None:
    """The smallest local view: where it cannot be encoded, a sentence says so before a layer fails."""
    x, refused = torch.randn(2, 1, 8, 8, 8), pytest.raises(GeometryError, match=r"found \(2, 1, 8, 8, 8\)")
    with refused if settings.kind == "resenc" else nullcontext():
        assert _levels(_parts(settings), x)[-1].shape[2:] == x.shape[2:]


@backbones
@pytest.mark.parametrize("side", [(16, 32, 33), (16, 31, 32), (15, 32, 32)], ids=str)
def test_sides_that_cannot_be_divided_are_refused(settings: BackboneSettings, side: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError, match=f"multiple.*{str(side)[1:-1]}|{str(side)[1:-1]}.*multiple"):
        settings.encoder()(torch.zeros(2, 1, *side))


@backbones
def test_every_parameter_takes_part(settings: BackboneSettings) -> None:
    """All have a gradient, on the shapes of both streams; that of a matrix or kernel is not zero."""
    for shape in SHAPES[:3]:
        parts = _livened(_parts(settings))
        _loss(_levels(parts, torch.randn(2, 1, *shape))).backward()
        assert [name for name, p in parts.named_parameters() if p.grad is None] == []
        assert [name for name, p in parts.named_parameters() if p.ndim > 1 and not p.grad.any()] == []  # type: ignore[union-attr]


@backbones
def test_every_weight_is_initialised(settings: BackboneSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is handed out is marked here: what nobody writes keeps the mark."""
    empty = torch.empty

    def marked(*size: Any, **options: Any) -> Tensor:
        memory = empty(*size, **options)
        return memory.fill_(12345)

    monkeypatch.setattr(torch, "empty", marked)
    assert nn.Parameter(torch.empty(3)).eq(12345).all()
    assert [name for name, value in _parts(settings).state_dict().items() if value.eq(12345).any()] == []


@backbones
def test_the_encoder_reloads_from_its_file(settings: BackboneSettings) -> None:
    encoder = _parts(settings)[0]
    x = torch.randn(2, 1, 8, 16, 16)
    encoder(x)
    reloaded, spec = load_encoder(io.BytesIO(serialise_encoder(encoder.state_dict(), EncoderSpec.of(settings))))
    assert torch.equal(reloaded(x), encoder.eval()(x))
    assert BACKBONES[spec.backbone](**spec.settings) == settings
    assert (spec.num_features, spec.side_multiple) == (settings.num_features, 8)


@backbones
def test_the_settings_survive_json(settings: BackboneSettings) -> None:
    run = Pretraining(method=CdsslP3D(backbone=settings), steps=1, global_batch=1)
    assert read_config(run.document(), "test") == run


@backbones
def test_float64_goes_through_and_agrees_with_float32(settings: BackboneSettings) -> None:
    parts = _livened(_parts(settings)).eval()
    x = torch.randn(2, 1, 8, 16, 16)
    narrow = _levels(parts, x)
    wide = _levels(parts.double(), x.double())
    for a, b in zip(narrow, wide, strict=True):
        assert b.dtype == torch.float64
        assert torch.allclose(a.double(), b, rtol=1e-3, atol=1e-4)


@backbones
def test_autocast_stays_near_float32(settings: BackboneSettings) -> None:
    """Of gradients nothing is said: on a CPU those of small convolutions are NaN now and then, and runs refuse bf16 there."""
    parts = _livened(_parts(settings)).eval()
    x = torch.randn(2, 1, 8, 16, 16)
    exact = _levels(parts, x)
    with torch.autocast("cpu", torch.bfloat16):
        near = _levels(parts, x)
    for a, b in zip(exact, near, strict=True):
        assert (a - b.float()).norm() < 0.05 * a.norm()


@pytest.mark.gpu
@backbones
def test_gradients_under_autocast_are_finite(settings: BackboneSettings) -> None:
    parts = _livened(_parts(settings)).eval().cuda()
    with torch.autocast("cuda", torch.bfloat16):
        near = _levels(parts, torch.randn(2, 1, 8, 16, 16, device="cuda"))
    _loss(near).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parts.parameters())


@backbones
def test_channels_last_changes_the_layout_alone(settings: BackboneSettings) -> None:
    parts = _livened(_parts(settings)).eval()
    x = torch.randn(2, 1, 8, 16, 16)
    before = _levels(parts, x)
    after = _levels(parts.to(memory_format=torch.channels_last_3d), x)  # type: ignore[call-overload]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(before, after, strict=True))


@backbones
def test_recomputation_changes_no_bit(settings: BackboneSettings) -> None:
    """Of outputs, gradients and buffers; nor does it rename anything."""

    def results(parts: nn.ModuleList) -> dict[str, Tensor]:
        levels = _levels(parts, torch.randn(2, 1, 8, 16, 16, generator=torch.Generator().manual_seed(1)))
        _loss(levels).backward()
        gradients = {f"gradient {name}": p.grad for name, p in parts.named_parameters() if p.grad is not None}
        return {**{f"level{i}": level.detach() for i, level in enumerate(levels)}, **gradients, **parts.state_dict()}

    plain, again = _livened(_parts(settings)), _livened(_parts(settings))
    for part in again:
        for unit in part.units():  # type: ignore[operator]
            enable_recomputation(unit)
    one, two = results(plain), results(again)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@backbones
def test_units_lie_beside_each_other_and_hold_most_parameters(settings: BackboneSettings) -> None:
    """One inside another would be computed three times."""
    for part in _parts(settings):
        units = part.units()  # type: ignore[operator]
        assert all(a not in set(b.modules()) for a, b in itertools.permutations(units, 2))
        inside = sum(p.numel() for unit in units for p in unit.parameters())
        assert inside > 0.5 * sum(p.numel() for p in part.parameters())


def _batch(stream: Presentation, side: tuple[int, int, int], local: tuple[int, int, int]) -> Batch:
    generator = torch.Generator().manual_seed(2)
    count = 4
    clean = torch.rand(count, 1, *side, generator=generator)
    view = (clean - 0.5) * 3
    tensors = {
        "view1": view + 0.1 * torch.randn(view.shape, generator=generator),
        "view2": view + 0.1 * torch.randn(view.shape, generator=generator),
        "clean1": clean,
        "local": torch.randn(count, 2, 1, *local, generator=generator),
    }
    return Batch(stream=stream, keys=("k",) * count, counts={stream: count}, tensors=tensors, least=count)


@backbones
@pytest.mark.integration
def test_pcrlv2_steps_on_images_and_volumes_lower_its_loss(settings: BackboneSettings) -> None:
    """The same method, batches and optimizer for every architecture; at a fixed step, so that levels drawn are the same."""
    torch.manual_seed(0)
    network = PyramidNet(settings, "random")
    batches = [_batch(Presentation.PSEUDO3D, (16, 16, 16), (16, 8, 8)), _batch(Presentation.SUPERPATCH, (8, 16, 16), (8, 8, 16))]
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    step, history = Step(index=0, total=10, seed=0), []
    for _ in range(8):
        loss = torch.stack([total_of(network(batch, step).losses) for batch in batches]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0] - 0.3, history


PAPER_SIZES = {
    "unet3d": (7_027_776, 9_723_392),
    "resenc": (90_296_576, 7_118_144),
    "vit3d": (21_393_024, 7_331_200),
    "swin3d": (12_610_374, 7_921_024),
}


@pytest.mark.parametrize(("kind", "counts"), PAPER_SIZES.items())
def test_the_defaults_have_as_many_parameters_as_their_docstrings_say(kind: str, counts: tuple[int, int]) -> None:
    settings = BACKBONES[kind]()
    with torch.device("meta"):
        parts = settings.encoder(), settings.decoder()
    assert tuple(sum(p.numel() for p in part.parameters()) for part in parts) == counts
    said = type(settings).encoder.__doc__ or ""
    assert f"{counts[0]:,} parameters" in said
    assert f"the decoder has {counts[1]:,}." in said
