"""The Cross-D U-Net: one network, images and volumes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.backbones.crossd_unet import CrossDUNet, CrossDUNetSettings
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.plain import convert_to_plain_2d, convert_to_plain_3d

SETTINGS = CrossDUNetSettings(base_width=4, poolings=3)


def test_scores_have_the_size_of_the_input() -> None:
    network = CrossDUNet(SETTINGS, 3).eval()
    for sides in ((16, 24), (8, 16, 24)):
        assert network(torch.randn(2, 1, *sides)).shape == (2, 3, *sides)


def test_the_pyramid_has_the_rank_of_its_input() -> None:
    encoder = SETTINGS.encoder()
    for sides in ((16, 24), (8, 16, 24)):
        x = torch.randn(2, 1, *sides)
        for level, (width, y) in enumerate(zip(SETTINGS.pyramid_widths, encoder.pyramid(x), strict=True)):
            assert y.shape == (2, width, *(side // 2**level for side in sides))
        assert encoder(x).shape[1] == SETTINGS.num_features


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"multiples of 8; found \(1, 1, 16, 20\)"):
        SETTINGS.encoder()(torch.zeros(1, 1, 16, 20))
    with pytest.raises(GeometryError, match="poolings"):
        CrossDUNetSettings(poolings=0)


def test_a_volume_of_equal_slices_is_segmented_as_its_slice() -> None:
    """Both views are one function where they can be: kernels with a middle slice alone, at rest, far from no border."""
    network = CrossDUNet(SETTINGS, 2).double().eval()
    for module in network.modules():
        if isinstance(module, CrossDConv) and module.rotation_params is not None:
            module.rotation_params.reset_to_zero_angle()
            module.weights_3d.data[:, :, (0, 2)] = 0
    x = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    flat = network(x)
    solid = network(x[:, :, None].expand(-1, -1, 8, -1, -1))
    assert torch.allclose(solid, flat[:, :, None].expand_as(solid), atol=1e-12)


@pytest.mark.parametrize("rank", [4, 5])
@pytest.mark.integration
def test_plain_views_are_exported_and_equal(rank: int) -> None:
    network = CrossDUNet(SETTINGS, 2).double().eval()
    x = torch.randn(1, 1, *(8, 16, 16)[5 - rank :], dtype=torch.float64)
    plain = convert_to_plain_3d(network) if rank == 5 else convert_to_plain_2d(network, x)
    kind = nn.Conv3d if rank == 5 else nn.Conv2d
    assert sum(type(m) is kind for m in plain.modules()) == sum(isinstance(m, CrossDConv) for m in network.modules())
    with torch.no_grad():
        assert torch.allclose(plain(x), network(x), rtol=1e-10, atol=1e-12)
        assert torch.allclose(torch.export.export(plain, (x,)).module()(x), network(x), rtol=1e-10, atol=1e-12)


@pytest.mark.integration
def test_images_and_volumes_train_one_set_of_weights() -> None:
    """A few steps on both lower both losses."""
    torch.manual_seed(0)
    network = CrossDUNet(CrossDUNetSettings(base_width=4, poolings=2), 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    flat, solid = torch.randn(4, 1, 16, 16), torch.randn(2, 1, 8, 16, 16)
    history = []
    for _ in range(12):
        losses = [nn.functional.cross_entropy(network(x), (x[:, 0] > 0.5).long()) for x in (flat, solid)]
        history.append([loss.item() for loss in losses])
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    assert all(after < 0.7 * before for before, after in zip(history[0], history[-1], strict=True))


def test_the_decoder_of_every_backbone_follows() -> None:
    levels = SETTINGS.decoder()(SETTINGS.encoder()(torch.randn(1, 1, 8, 16, 16)))
    assert [tuple(level.shape[1:]) for level in levels] == [(16, 2, 4, 4), (8, 4, 8, 8), (4, 8, 16, 16)]
