"""Strided encoder and the decoder of the same shape: the plain convolutional autoencoder that masked ones are compared with.

Axes: B batch, C channel, D depth, H height, W width. Source: ours; MAESIL names AE, VAE and VQ-VAE as baselines, but their
settings were not available to us.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.decoder import Triple
from crossdim.training.layers.dual_norm import Norm


@dataclass(frozen=True, kw_only=True, slots=True)
class StridedSettings(BackboneSettings):
    """Channels of the stages, each of which halves every side.

    Attributes:
        in_channels: channels of the input.
        widths: channels of the stages, each of which halves every side.
    """

    kind: ClassVar[str] = "strided"

    in_channels: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 256)

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            in_channels=self.in_channels >= 1,
            widths=min(self.widths, default=0) >= 1,
        ):
            raise GeometryError(f"a strided encoder needs stages and channels of at least 1; found {found}")

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return self.widths[-1]

    @property
    def reduction(self) -> Triple:
        """16 on every axis for four stages."""
        side = 2 ** len(self.widths)
        return side, side, side

    @property
    def level_widths(self) -> Triple:
        """Halved from level to level, as in the U-Net."""
        last = self.num_features
        return max(1, last // 2), max(1, last // 4), max(1, last // 8)

    @property
    def decoder_norm(self) -> Norm:
        """As in the encoder."""
        return "in"

    def encoder(self) -> StridedEncoder:
        """The encoder."""
        return StridedEncoder(self)

    def voxel_decoder(self) -> StridedDecoder:
        """The decoder back to voxels."""
        return StridedDecoder(self)


def _add_norm(layer: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.InstanceNorm3d(width, affine=True), nn.LeakyReLU(0.01))


class StridedEncoder(nn.Module):
    """(B, C, D, H, W) -> (B, 256, D/16, H/16, W/16): convolutions of 3^3 and stride 2, instance norm, leaky ReLU.

    The last convolution has neither norm nor activation: its output is the code (ours).
    """

    def __init__(self, settings: StridedSettings) -> None:
        super().__init__()
        self._side = settings.side_multiple
        pairs = itertools.pairwise((settings.in_channels, *settings.widths))
        layers = [nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in pairs]
        self.stages = nn.ModuleList([*(_add_norm(layer, layer.out_channels) for layer in layers[:-1]), layers[-1]])

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The code.

        Raises:
            GeometryError: if a side is no multiple of 2 per stage.
        """
        if any(side % self._side for side in x_BCDHW.shape[2:]):
            raise GeometryError(f"sides must be multiples of {self._side}; found {tuple(x_BCDHW.shape)}")
        for stage in self.stages:
            x_BCDHW = stage(x_BCDHW)
        return x_BCDHW

    def units(self) -> list[nn.Module]:
        """The stages."""
        return list(self.stages)


class StridedDecoder(nn.Module):
    """The encoder in reverse: transposed convolutions of 4^3 and stride 2, which cover every voxel equally often."""

    def __init__(self, settings: StridedSettings) -> None:
        super().__init__()
        pairs = itertools.pairwise((*settings.widths[::-1], settings.in_channels))
        layers = [nn.ConvTranspose3d(a, b, 4, stride=2, padding=1) for a, b in pairs]
        self.stages = nn.ModuleList([*(_add_norm(layer, layer.out_channels) for layer in layers[:-1]), layers[-1]])

    def forward(self, code_BCDHW: Tensor) -> Tensor:
        """(B, C, D, H, W), unbounded."""
        for stage in self.stages:
            code_BCDHW = stage(code_BCDHW)
        return code_BCDHW

    def units(self) -> list[nn.Module]:
        """The stages."""
        return list(self.stages)
