"""A U-Net whose convolutions are Cross-D: one set of weights that segments images and volumes.

The authors of Cross-D Conv (arXiv 2411.02441) name segmentation networks as future work; this one is ours, after
Ronneberger et al. (arXiv 1505.04597). Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.layers import anyrank
from crossdim.training.layers.conv_geometry import Triple
from crossdim.training.layers.crossd import CrossDConv
from crossdim.training.layers.dual_norm import Norm


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossDUNetSettings(BackboneSettings):
    """Width of the first level, which doubles at each of the poolings, and input channels.

    Attributes:
        base_width: channels of the first level; they double at each pooling.
        poolings: number of poolings.
        in_channels: channels of the input.
    """

    kind: ClassVar[str] = "crossd_unet"

    base_width: int = 32
    poolings: int = 4
    in_channels: int = 1

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            base_width=self.base_width >= 1,
            in_channels=self.in_channels >= 1,
            poolings=1 <= self.poolings <= 6,
        ):
            raise GeometryError(f"a U-Net needs widths of at least 1 and 1 to 6 poolings; found {found}")

    @property
    def pyramid_widths(self) -> tuple[int, ...]:
        """Channels of every level, finest first."""
        return tuple(self.base_width * 2**level for level in range(self.poolings + 1))

    @property
    def num_features(self) -> int:
        """Channels of the deepest level."""
        return self.pyramid_widths[-1]

    @property
    def reduction(self) -> Triple:
        """Two along every axis for each pooling."""
        factor: int = 2**self.poolings
        return factor, factor, factor

    @property
    def level_widths(self) -> Triple:
        """Channels of the three levels of a decoder without skip connections."""
        return self.base_width * 4, self.base_width * 2, self.base_width

    @property
    def decoder_norm(self) -> Norm:
        """Batch norm, as in the encoder."""
        return "bn"

    def encoder(self) -> CrossDUNetEncoder:
        """The encoder, with newly drawn weights."""
        return CrossDUNetEncoder(self)


def build_unit(width_in: int, width_out: int) -> nn.Sequential:
    """Build two times convolution with 3 taps along every axis, batch norm and ReLU.

    Args:
        width_in: input channels.
        width_out: output channels.

    Returns:
        (B, width_in, ...) -> (B, width_out, ...), for images and volumes.
    """
    layers: list[nn.Module] = []
    for width in (width_in, width_out):
        layers += [
            CrossDConv(width, width_out, 3, padding=1, bias=False),
            anyrank.BatchNorm(width_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class CrossDUNetEncoder(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W) -> the deepest feature map."""

    def __init__(self, settings: CrossDUNetSettings) -> None:
        super().__init__()
        widths = (settings.in_channels, *settings.pyramid_widths)
        self.multiple = settings.side_multiple
        self.levels = nn.ModuleList(build_unit(w, out) for w, out in itertools.pairwise(widths))
        self.pool = anyrank.MaxPool(2)

    def units(self) -> list[nn.Module]:
        """Every level."""
        return list(self.levels)

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Feature maps of every level, finest first, of the input's rank.

        Raises:
            GeometryError: if a side cannot be halved as often as there are poolings.
        """
        if any(side % self.multiple for side in x.shape[2:]):
            raise GeometryError(f"sides must be multiples of {self.multiple}; found {tuple(x.shape)}")
        maps: list[Tensor] = []
        for level in self.levels:
            maps.append(level(self.pool(maps[-1]) if maps else x))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """The deepest map of the pyramid."""
        return self.pyramid(x)[-1]


class CrossDUNet(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W) -> scores of the classes for every pixel or voxel, of the same rank and size."""

    def __init__(self, settings: CrossDUNetSettings, num_classes: int) -> None:
        super().__init__()
        self.encoder = CrossDUNetEncoder(settings)
        coarser = tuple(reversed(settings.pyramid_widths))
        self.enlarge = anyrank.Upsample(2, linear=True)
        self.refine = nn.ModuleList(build_unit(deep + skip, skip) for deep, skip in itertools.pairwise(coarser))
        self.classify = CrossDConv(settings.base_width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        *skips, y = self.encoder.pyramid(x)
        for refine, skip in zip(self.refine, reversed(skips), strict=True):
            y = refine(torch.cat([self.enlarge(y), skip], dim=1))
        scores: Tensor = self.classify(y)
        return scores
