"""Agnostic of architecture: the suite of every method, for CDSSL-P3D with every backbone, every norm, and all levels at once."""

from __future__ import annotations

import dataclasses

import pytest

from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones import BACKBONES
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.crossd_unet import CrossDUNetSettings
from crossdim.training.backbones.resenc import ResEncSettings
from crossdim.training.backbones.swin3d import Swin3DSettings
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.backbones.vit3d import ViT3DSettings
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.objectives.pcrlv2 import LevelMode
from crossdim.training.recipes.cdssl_p3d import tiny
from tests.training.methods.method_suite import MethodSuite
from tests.training.published import images, superpatches

SMALL: list[tuple[BackboneSettings, LevelMode]] = [
    (UNet3DSettings(base_width=4, norm="dual_bn"), "random"),
    (UNet3DSettings(base_width=4, norm="gn"), "all"),
    (UNet3DSettings(base_width=4, norm="in"), "random"),
    (
        ResEncSettings(features_per_stage=(4, 6, 8, 12, 16, 16), blocks_per_stage=(1, 1, 2, 1, 1, 2), level_widths=(16, 8, 8)),
        "random",
    ),
    (ViT3DSettings(width=24, depth=2, heads=2, level_widths=(16, 8, 8)), "random"),
    (Swin3DSettings(width=8, depths=(2, 2, 2), heads=(1, 2, 4), window=(2, 3, 3), level_widths=(16, 8, 8)), "random"),
]


def _with(backbone: BackboneSettings, mode: LevelMode) -> CdsslP3D:
    """Tiny views with local ones of 16 voxels: instance norm needs more than the one voxel that 8 become."""
    method = tiny().method
    assert isinstance(method, CdsslP3D)
    flat = dataclasses.replace(method.flat, local_side=64)
    solid = dataclasses.replace(method.solid, global_side=(16, 16, 16), local_side=(16, 16, 16))
    return dataclasses.replace(method, backbone=backbone, level_mode=mode, flat=flat, solid=solid)


class TestBackbones(MethodSuite):
    @pytest.fixture(params=SMALL, ids=lambda param: f"{param[0].kind}-{getattr(param[0], 'norm', '')}-{param[1]}")
    def config(self, request: pytest.FixtureRequest) -> MethodConfig:
        return _with(*request.param)

    @pytest.fixture
    def samples(self) -> dict[Presentation, list[Sample]]:
        return {Presentation.PSEUDO3D: images(3), Presentation.SUPERPATCH: superpatches(3)}


def test_no_architecture_is_left_out() -> None:
    """Backbones that only another method uses are named here, so that a new one is thought of."""
    others = {"resnet", CrossDUNetSettings.kind, "superpatch-vit", "strided"}
    assert {backbone.kind for backbone, _ in SMALL} == BACKBONES.keys() - others
