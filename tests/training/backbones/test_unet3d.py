"""The non-skip 3D U-Net: parameter counts and shapes of the published one."""

from __future__ import annotations

import pytest
import torch

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.backbones.unet3d import Encoder3D, UNet3DSettings
from crossdim.training.methods.cdssl_p3d import CdsslP3D


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_as_many_as_published() -> None:
    """Fails if a skip, a projector or a bias differs."""
    network = CdsslP3D().build()
    assert _count(network.encoder) == 7_027_776
    assert _count(network.decoder) == 9_723_392
    assert [_count(head) for head in network.heads] == [271_363, 70_147, 18_691]
    assert _count(network) == 17_111_434


@pytest.mark.parametrize("side", [(32, 64, 64), (16, 56, 56), (16, 24, 24)])
def test_levels_have_the_published_shapes(side: tuple[int, int, int]) -> None:
    """At an eighth of the width."""
    network = CdsslP3D(backbone=UNet3DSettings(base_width=4)).build()
    levels = network.levels(torch.zeros(2, 1, *side))
    assert [level.shape[1] for level in levels] == [32, 16, 8]
    assert [p.z.shape[1] for p in network.pairs(levels)] == [32, 16, 8]
    assert all(network.restore_at(i, levels).shape == (2, 1, *side) for i in range(3))
    assert network.reconstruct(torch.zeros(2, 1, *side)).shape == (2, 1, *side)


def test_sides_that_cannot_be_pooled_three_times_are_refused() -> None:
    """(9, 74, 74) is what k = 3 makes of 224 pixels."""
    with pytest.raises(GeometryError, match=r"multiples of 8; found \(2, 1, 9, 74, 74\)"):
        Encoder3D(UNet3DSettings(base_width=2))(torch.zeros(2, 1, 9, 74, 74))


def test_all_that_the_decoder_knows_went_through_the_bottleneck() -> None:
    """Decoding the deepest map alone gives the whole output, so there is no skip connection."""
    settings = UNet3DSettings(base_width=2)
    encoder, decoder = settings.encoder().eval(), settings.decoder().eval()
    x = torch.randn(1, 1, 16, 16, 16)
    deepest = encoder(x)
    expected = decoder(deepest)
    seen: list[torch.Size] = []
    decoder.levels[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    assert all(torch.equal(a, b) for a, b in zip(decoder(deepest.clone()), expected, strict=True))
    assert seen == [deepest.shape]


@pytest.mark.parametrize("norm", ["bn", "gn", "in", "dual_bn"])
def test_every_norm_trains(norm: str) -> None:
    encoder = Encoder3D(UNet3DSettings(base_width=2, norm=norm))  # type: ignore[arg-type]
    encoder(torch.randn(2, 1, 16, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
