"""The 3D U-Net of PCRLv2: encoder and decoder without skip connections, so that all the decoder knows went through the encoder.

Source: RL4M/PCRLv2, models/pcrlv2_model_3d.py (lines 6-65, 114-129), rebuilt from its description; checked by parameter
counts. Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from storage_schema.errors import GeometryError
from training.backbones.base import BackboneSettings

Norm = Literal["bn", "gn", "in"]
POOLINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class UNet3DSettings(BackboneSettings):
    """Width of the first convolution (32 in PCRLv2; every other width scales with it), input channels and normalisation."""

    kind: ClassVar[str] = "unet3d"
    side_multiple: ClassVar[int] = 2**POOLINGS

    base_width: int = 32
    in_channels: int = 1
    norm: Norm = "bn"

    def __post_init__(self) -> None:
        if self.base_width < 1 or self.in_channels < 1 or self.norm not in ("bn", "gn", "in"):
            raise GeometryError(f"a 3D U-Net needs widths of at least 1 and norm bn, gn or in; found {self}")

    @property
    def num_features(self) -> int:
        """Channels at the bottom: 512 for base width 32."""
        return self.base_width * 16

    @property
    def level_widths(self) -> tuple[int, int, int]:
        """Channels of the three decoder levels, deepest first: 256, 128, 64."""
        return self.base_width * 8, self.base_width * 4, self.base_width * 2

    def encoder(self) -> Encoder3D:
        """7,027,776 parameters at base width 32."""
        return Encoder3D(self)

    def decoder(self) -> Decoder3D:
        """9,723,392 parameters at base width 32."""
        return Decoder3D(self)


def normalisation(kind: Norm, channels: int) -> nn.Module:
    """The normalisation layer of a unit."""
    if kind == "bn":
        return nn.BatchNorm3d(channels)
    if kind == "gn":
        return nn.GroupNorm(min(8, channels), channels)
    return nn.InstanceNorm3d(channels, affine=True)


def unit(width_in: int, width_out: int, norm: Norm) -> nn.Sequential:
    """3x3x3 convolution with bias, normalisation, ReLU."""
    return nn.Sequential(nn.Conv3d(width_in, width_out, 3, padding=1), normalisation(norm, width_out), nn.ReLU(inplace=True))


class Encoder3D(nn.Module):
    """(B, C, D, H, W) -> (B, 512, D/8, H/8, W/8) for base width 32."""

    def __init__(self, settings: UNet3DSettings) -> None:
        super().__init__()
        b, norm = settings.base_width, settings.norm
        self.down0 = nn.Sequential(unit(settings.in_channels, b, norm), unit(b, 2 * b, norm))
        self.down1 = nn.Sequential(unit(2 * b, 2 * b, norm), unit(2 * b, 4 * b, norm))
        self.down2 = nn.Sequential(unit(4 * b, 4 * b, norm), unit(4 * b, 8 * b, norm))
        self.down3 = nn.Sequential(unit(8 * b, 8 * b, norm), unit(8 * b, 16 * b, norm))
        self.pool = nn.MaxPool3d(2)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The deepest feature map.

        Raises:
            GeometryError: if a side is no multiple of 8.
        """
        if any(side % 2**POOLINGS for side in x_BCDHW.shape[2:]):
            raise GeometryError(
                f"the 3D U-Net pools {POOLINGS} times: sides must be multiples of 8; found {tuple(x_BCDHW.shape)}"
            )
        for stage in (self.down0, self.down1, self.down2):
            x_BCDHW = self.pool(stage(x_BCDHW))
        deepest: Tensor = self.down3(x_BCDHW)
        return deepest


class Decoder3D(nn.Module):
    """The deepest map -> three feature maps, deepest first, at 1/4, 1/2 and full size."""

    def __init__(self, settings: UNet3DSettings) -> None:
        super().__init__()
        widths = (settings.num_features, *settings.level_widths)
        self.up = nn.ModuleList(nn.ConvTranspose3d(w, w, 2, stride=2) for w in widths[:-1])
        self.refine = nn.ModuleList(
            nn.Sequential(unit(w, out, settings.norm), unit(out, out, settings.norm)) for w, out in itertools.pairwise(widths)
        )

    def forward(self, deepest_BCDHW: Tensor) -> list[Tensor]:
        """Feature maps of the three levels, of 256, 128 and 64 channels for base width 32."""
        levels = []
        x = deepest_BCDHW
        for up, refine in zip(self.up, self.refine, strict=True):
            x = refine(up(x))
            levels.append(x)
        return levels
