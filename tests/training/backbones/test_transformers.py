"""ViT against PyTorch's own transformer, positions, settings, and scores that half precision could not hold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.swin3d import Swin3DSettings
from crossdim.training.backbones.vit3d import ViT3D, ViT3DSettings

VIT = ViT3DSettings(width=24, depth=2, heads=2, level_widths=(16, 8, 8))
SWIN = Swin3DSettings(width=8, depths=(2, 2, 2), heads=(1, 2, 4), window=(2, 3, 3), level_widths=(16, 8, 8))
TRANSFORMERS = pytest.mark.parametrize("settings", [VIT, SWIN], ids=["vit3d", "swin3d"])


def _blocks_by_pytorch(vit: ViT3D) -> nn.TransformerEncoder:
    """The same weights in ``nn.TransformerEncoder``."""
    layer = nn.TransformerEncoderLayer(24, 2, 96, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(24), enable_nested_tensor=False)
    for mine, theirs in zip([p for block in vit.blocks for p in _ordered(block)], encoder.layers.parameters(), strict=True):
        theirs.data = mine.data
    encoder.norm.load_state_dict(vit.norm.state_dict())  # type: ignore[union-attr]
    return encoder


def _ordered(block: nn.Module) -> list[nn.Parameter]:
    """Parameters in the order of ``nn.TransformerEncoderLayer``."""
    parts = (block.attention.qkv, block.attention.out, block.feed[0], block.feed[2], block.norm1, block.norm2)  # type: ignore[union-attr, index]
    return [p for part in parts for p in part.parameters()]  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(16, 24, 24), (4, 8, 16), (16, 56, 56)])
def test_the_vit_is_pytorchs_transformer_on_embedded_patches_and_positions(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    vit = VIT.encoder().eval()
    for p in vit.parameters():
        nn.init.normal_(p, std=0.3)
    x, (d, h, w) = torch.randn(2, 1, *shape), (shape[0] // 4, shape[1] // 8, shape[2] // 8)
    places = []
    for i in range(d):
        for j in range(h):
            for k in range(w):
                angles = [c / 10_000 ** (torch.arange(4) / 4) for c in (i, j, k)]
                places.append(torch.cat([part for a in angles for part in (a.sin(), a.cos())]))
    tokens = nn.functional.conv3d(x, vit.embed.weight, vit.embed.bias, (4, 8, 8)).permute(0, 2, 3, 4, 1).reshape(2, d * h * w, 24)
    expected = _blocks_by_pytorch(vit).eval()(tokens + torch.stack(places))
    assert torch.allclose(vit(x).permute(0, 2, 3, 4, 1).reshape(expected.shape), expected, atol=1e-4)


def test_default_patches_make_196_tokens_of_an_image() -> None:
    with torch.device("meta"):
        assert ViT3DSettings().encoder()(torch.zeros(2, 1, 16, 56, 56)).shape == (2, 384, 4, 7, 7)
        assert Swin3DSettings().encoder()(torch.zeros(2, 1, 16, 56, 56)).shape == (2, 384, 2, 7, 7)


def test_an_empty_volume_still_tells_its_tokens_apart_along_every_axis() -> None:
    """Attention alone does not know order."""
    deepest = VIT.encoder()(torch.zeros(1, 1, 8, 16, 16))
    for axis in (2, 3, 4):
        first, second = deepest.unbind(axis)
        assert not torch.allclose(first, second, atol=1e-2)


@TRANSFORMERS
def test_scores_beyond_half_precision_stay_finite(settings: BackboneSettings) -> None:
    """Products of queries and keys above 65504 are infinite in float16, and their softmax NaN."""
    encoder = settings.encoder()
    for name, p in encoder.named_parameters():
        if "qkv.weight" in name:
            nn.init.normal_(p, std=150)
    with torch.autocast("cpu", torch.float16):
        deepest = encoder(torch.randn(2, 1, 8, 16, 16))
    assert deepest.isfinite().all()
    deepest.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())


@TRANSFORMERS
def test_the_residual_stream_is_float32_under_autocast(settings: BackboneSettings) -> None:
    """Sums over many blocks in bfloat16 would lose what the last ones add."""
    encoder = settings.encoder()
    types: list[torch.dtype] = []
    for unit in encoder.units():  # type: ignore[operator]
        unit.register_forward_hook(lambda _, __, result: types.append(result.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(2, 1, 8, 16, 16))
    assert set(types) == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (ViT3DSettings, {"width": 100}),
        (ViT3DSettings, {"width": 384, "heads": 5}),
        (ViT3DSettings, {"patch": (4, 6, 6)}),
        (ViT3DSettings, {"depth": 0}),
        (ViT3DSettings, {"decoder_norm": "ln"}),
        (Swin3DSettings, {"heads": (3, 5, 12)}),
        (Swin3DSettings, {"window": (0, 7, 7)}),
        (Swin3DSettings, {"patch": (3, 2, 2)}),
    ],
)
def test_settings_that_make_no_network_are_refused(kind: type[BackboneSettings], wrong: dict[str, object]) -> None:
    with pytest.raises(GeometryError, match="found"):
        kind(**wrong)
