"""The residual encoder: nnU-Net's names, shapes and values."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from torch import nn

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.backbones.resenc import STRIDES, ResEncSettings
from tests.training.backbones.make_resenc_golden import GOLDEN
from tests.training.backbones.nnunet import NNUNET_STRIDES, library_encoder

SMALL_FEATURES, SMALL_BLOCKS = (4, 6, 8, 8), (1, 2, 1, 2)
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("dynamic_network_architectures") is None,
    reason="pip install --no-deps dynamic-network-architectures==0.4.4 to compare with nnU-Net's own encoder",
)


def _shapes(module: nn.Module) -> list[tuple[str, list[int]]]:
    return [(name, list(tensor.shape)) for name, tensor in module.state_dict().items()]


@pytest.mark.parametrize("strides", [STRIDES, NNUNET_STRIDES], ids=["ours", "nnunet"])
def test_names_and_shapes_are_those_recorded_from_nnunet(strides: tuple[tuple[int, int, int], ...]) -> None:
    """Our strides pool less, and must not rename a tensor."""
    with torch.device("meta"):
        assert _shapes(ResEncSettings(strides=strides).encoder()) == list(json.loads(GOLDEN.read_text()).items())


@needs_library
def test_the_record_is_what_the_library_says_today() -> None:
    with torch.device("meta"):
        assert _shapes(library_encoder()) == list(json.loads(GOLDEN.read_text()).items())


@needs_library
@pytest.mark.parametrize("last", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)])
def test_with_copied_weights_the_features_are_the_librarys(last: tuple[int, int, int]) -> None:
    """The last stage keeps its width, so its skip pools without projecting, or is nothing at all."""
    strides = ((1, 1, 1), (2, 2, 2), (1, 2, 2), last)
    ours = ResEncSettings(
        features_per_stage=SMALL_FEATURES, blocks_per_stage=SMALL_BLOCKS, strides=strides, level_widths=(8, 8, 4)
    ).encoder()
    theirs = library_encoder(strides, SMALL_FEATURES, SMALL_BLOCKS)
    for p in theirs.parameters():
        nn.init.normal_(p)  # scales that start at zero would hide what is inside the blocks
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 1, 8, 16, 16)
    assert torch.allclose(ours(x), theirs(x)[-1], rtol=1e-5, atol=1e-5)


@needs_library
def test_initial_weights_are_spread_as_the_librarys() -> None:
    """Same deviations for every tensor, so zeros where it has zeros."""
    settings = ResEncSettings(
        features_per_stage=(16, 32), blocks_per_stage=(1, 2), strides=((1, 1, 1), (2, 2, 2)), level_widths=(8, 8, 4)
    )
    theirs = library_encoder(((1, 1, 1), (2, 2, 2)), (16, 32), (1, 2)).state_dict()
    for name, ours in settings.encoder().state_dict().items():
        spread = ours.square().mean().sqrt()
        assert torch.allclose(spread, theirs[name].square().mean().sqrt(), rtol=0.15), name


@pytest.mark.parametrize("shape", [(16, 56, 56), (16, 24, 24), (32, 64, 64), (16, 16, 16)])
def test_default_strides_divide_the_views_and_nnunets_would_not(shape: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        assert ResEncSettings().encoder()(torch.zeros(2, 1, *shape)).shape == (2, 320, *(side // 8 for side in shape))
        if shape != (32, 64, 64):
            with pytest.raises(GeometryError, match="must be multiples"):
                ResEncSettings(strides=NNUNET_STRIDES).encoder()(torch.zeros(2, 1, *shape))


def test_what_would_leave_one_voxel_to_an_instance_norm_is_refused() -> None:
    with torch.device("meta"), pytest.raises(GeometryError, match=r"more than one voxel.*found \(2, 1, 8, 8, 8\)"):
        ResEncSettings().encoder()(torch.zeros(2, 1, 8, 8, 8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"blocks_per_stage": (1, 1)},
        {"blocks_per_stage": (0, 3, 4, 6, 6, 6)},
        {"strides": ((1, 1, 1), (3, 2, 2), *STRIDES[2:])},
        {"decoder_norm": "ln"},
    ],
)
def test_settings_that_make_no_network_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(GeometryError):
        ResEncSettings(**wrong)  # type: ignore[arg-type]
