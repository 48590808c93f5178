"""The residual encoder of nnU-Net, with nnU-Net's names of weights, so that its ResEnc-L can start from ours.

Isensee et al., nnU-Net Revisited (arXiv 2404.09556); the blocks are those of ResNet-D (He et al., arXiv 1812.01187).
Structure, names and initialisation are those of ``ResidualEncoderUNet.encoder`` in dynamic-network-architectures 0.4.4, and
tested against it by name, shape and value; the code is ours. Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.decoder import Triple, upsampling
from crossdim.training.layers.dual_norm import NORMS, Norm

SLOPE = 1e-2  # of the leaky ReLU; nnU-Net

#: nnU-Net strides every stage but the first by 2, down to 1/32; we stop at 1/8: views of (16, 56, 56) and (16, 24, 24) can be
#: divided by 8 and not by 16, and a local view of side 16 has 2^3 voxels left for the last instance norms. Stages 1 to 4 all
#: stride on some axis, because a skip's projection is called ``skip.1`` after a pooling and ``skip.0`` without one; so the names
#: are those of ResEnc-L. Depth is halved last, because in pseudo-3D it is the position inside a window of 4 x 4.
STRIDES: tuple[Triple, ...] = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 1, 1), (1, 1, 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class ResEncSettings(BackboneSettings):
    """Stages of residual blocks; the defaults are ResEnc-L except for the strides.

    Attributes:
        in_channels: channels of the input.
        features_per_stage: channels of each stage.
        blocks_per_stage: residual blocks of two convolutions each.
        strides: strides along (D, H, W) of the first block of each stage.
        level_widths: channels of the decoder's levels; PCRLv2's, so that methods compare backbones with projections of equal
            length.
        decoder_norm: norm of the decoder: batch norm as in PCRLv2; instance norm would remove the means that projections are
            made of.
    """

    kind: ClassVar[str] = "resenc"

    in_channels: int = 1
    features_per_stage: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    blocks_per_stage: tuple[int, ...] = (1, 3, 4, 6, 6, 6)
    strides: tuple[Triple, ...] = STRIDES
    level_widths: Triple = (256, 128, 64)
    decoder_norm: Norm = "bn"

    def __post_init__(self) -> None:
        stages = {len(self.features_per_stage), len(self.blocks_per_stage), len(self.strides)}
        if found := list_wrong_settings(
            self,
            in_channels=self.in_channels >= 1,
            features_per_stage=len(stages) == 1 and min(self.features_per_stage, default=0) >= 1,
            blocks_per_stage=len(stages) == 1 and min(self.blocks_per_stage, default=0) >= 1,
            strides=len(stages) == 1,
            level_widths=min(self.level_widths) >= 1,
            decoder_norm=self.decoder_norm in NORMS,
        ):
            raise GeometryError(
                "a residual encoder needs features, blocks and strides for each stage, sizes of at least 1, and a decoder norm "
                f"out of {', '.join(NORMS)}; found {found}"
            )
        upsampling(self.reduction)

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return self.features_per_stage[-1]

    @property
    def reduction(self) -> Triple:
        """The product of the strides."""
        d, h, w = (math.prod(axis) for axis in zip(*self.strides, strict=True))
        return d, h, w

    def encoder(self) -> ResidualEncoder3D:
        """90,296,576 parameters with the defaults; the decoder has 7,118,144."""
        return ResidualEncoder3D(self)


class ResidualEncoder3D(nn.Module):
    """(B, C, D, H, W) -> (B, 320, D/8, H/8, W/8) with the defaults."""

    def __init__(self, settings: ResEncSettings) -> None:
        super().__init__()
        self._reduction = settings.reduction
        widths = (settings.features_per_stage[0], *settings.features_per_stage)
        shape = zip(itertools.pairwise(widths), settings.blocks_per_stage, settings.strides, strict=True)
        self.stem = nn.ModuleDict({"convs": nn.Sequential(ConvNormReLU(settings.in_channels, widths[0]))})
        self.stages = nn.ModuleList(
            nn.ModuleDict({"blocks": _build_stage(before, after, blocks, stride)}) for (before, after), blocks, stride in shape
        )
        self.apply(_initialise)

    def units(self) -> list[nn.Module]:
        """Stem and residual blocks."""
        return [*self.stem["convs"], *(block for stage in self.stages for block in stage["blocks"])]  # type: ignore[index, misc]

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The feature map of the last stage.

        Raises:
            GeometryError: if a side is not a multiple of the product of its strides, or only one voxel would reach the last
                stage.
        """
        sides = x_BCDHW.shape[2:]
        if any(side % r for side, r in zip(sides, self._reduction, strict=True)) or sides == self._reduction:
            raise GeometryError(
                f"the residual encoder reduces sides by {self._reduction}: they must be multiples of it, and leave more than "
                f"one voxel, for instance norm is undefined on one; found {tuple(x_BCDHW.shape)}"
            )
        for unit in self.units():
            x_BCDHW = unit(x_BCDHW)
        return x_BCDHW


class ConvNormReLU(nn.Module):
    """Convolution, instance norm, leaky ReLU unless ``active`` is False.

    The layers are registered twice, alone and in ``all_modules``, as in the library, so that names in the state are the same.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: int = 3,
        stride: Triple = (1, 1, 1),
        *,
        bias: bool = True,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width_in, width_out, kernel, stride, padding=kernel // 2, bias=bias)
        self.norm = nn.InstanceNorm3d(width_out, eps=1e-5, affine=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, *([nn.LeakyReLU(SLOPE, inplace=True)] if active else []))

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, width_in, D, H, W) -> (B, width_out, D / stride, ...)."""
        y: Tensor = self.all_modules(x_BCDHW)
        return y


class ResidualBlock(nn.Module):
    """Two convolutions and a skip, which average-pools at a stride and projects if the number of channels changes."""

    def __init__(self, width_in: int, width_out: int, stride: Triple) -> None:
        super().__init__()
        self.conv1 = ConvNormReLU(width_in, width_out, stride=stride)
        self.conv2 = ConvNormReLU(width_out, width_out, active=False)
        pool = [nn.AvgPool3d(stride, stride)] if max(stride) > 1 else []
        project = [ConvNormReLU(width_in, width_out, 1, bias=False, active=False)] if width_in != width_out else []
        self.skip = nn.Sequential(*pool, *project)
        self.active = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """(B, width_in, D, H, W) -> (B, width_out, D / stride, ...)."""
        y: Tensor = self.active(self.conv2(self.conv1(x_BCDHW)) + self.skip(x_BCDHW))
        return y


def _build_stage(width_in: int, width_out: int, blocks: int, stride: Triple) -> nn.Sequential:
    first = ResidualBlock(width_in, width_out, stride)
    return nn.Sequential(first, *(ResidualBlock(width_out, width_out, (1, 1, 1)) for _ in range(blocks - 1)))


def _initialise(module: nn.Module) -> None:
    """Kaiming normal for convolutions; a block starts as its skip, because the last scale inside it is zero."""
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, a=SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        nn.init.zeros_(module.conv2.norm.weight)
