"""The 3D U-Net of PCRLv2, without skip connections, so that all information of the decoder passes the encoder.

Source: RL4M/PCRLv2, models/pcrlv2_model_3d.py (lines 6-65, 114-129), rebuilt from its description; checked by parameter
counts. Axes: B batch, C channel, D depth, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError, list_wrong_settings
from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.backbones.decoder import Triple
from crossdim.training.backbones.unit import build_unit
from crossdim.training.layers.dual_norm import NORMS, Norm

POOLINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class UNet3DSettings(BackboneSettings):
    """Settings of the U-Net.

    Attributes:
        base_width: channels of the first convolution (32 in PCRLv2); all other widths scale with it.
        in_channels: channels of the input.
        norm: norm of encoder and decoder: batch, group or instance norm, or batch norm with statistics of images and volumes
            apart.
    """

    kind: ClassVar[str] = "unet3d"

    base_width: int = 32
    in_channels: int = 1
    norm: Norm = "bn"

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            base_width=self.base_width >= 1,
            in_channels=self.in_channels >= 1,
            norm=self.norm in NORMS,
        ):
            raise GeometryError(f"a 3D U-Net needs widths of at least 1 and norm {', '.join(NORMS)}; found {found}")

    @property
    def num_features(self) -> int:
        """Channels at the bottom: 512 for base width 32."""
        return self.base_width * 16

    @property
    def reduction(self) -> Triple:
        """8 on every axis."""
        return (2**POOLINGS,) * 3

    @property
    def level_widths(self) -> Triple:
        """Channels of the three decoder levels, deepest first: 256, 128, 64."""
        return self.base_width * 8, self.base_width * 4, self.base_width * 2

    @property
    def decoder_norm(self) -> Norm:
        """The same as the encoder's."""
        return self.norm

    def encoder(self) -> Encoder3D:
        """7,027,776 parameters at base width 32; the decoder has 9,723,392."""
        return Encoder3D(self)


class Encoder3D(nn.Module):
    """(B, C, D, H, W) -> (B, 512, D/8, H/8, W/8) for base width 32."""

    def __init__(self, settings: UNet3DSettings) -> None:
        super().__init__()
        b, norm = settings.base_width, settings.norm
        self.down0 = nn.Sequential(build_unit(settings.in_channels, b, norm), build_unit(b, 2 * b, norm))
        self.down1 = nn.Sequential(build_unit(2 * b, 2 * b, norm), build_unit(2 * b, 4 * b, norm))
        self.down2 = nn.Sequential(build_unit(4 * b, 4 * b, norm), build_unit(4 * b, 8 * b, norm))
        self.down3 = nn.Sequential(build_unit(8 * b, 8 * b, norm), build_unit(8 * b, 16 * b, norm))
        self.pool = nn.MaxPool3d(2)

    def units(self) -> list[nn.Module]:
        """The four stages."""
        return [self.down0, self.down1, self.down2, self.down3]

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """The deepest feature map.

        Raises:
            GeometryError: if a side is not a multiple of 8.
        """
        if any(side % 2**POOLINGS for side in x_BCDHW.shape[2:]):
            raise GeometryError(
                f"the 3D U-Net pools {POOLINGS} times: sides must be multiples of 8; found {tuple(x_BCDHW.shape)}"
            )
        for stage in (self.down0, self.down1, self.down2):
            x_BCDHW = self.pool(stage(x_BCDHW))
        deepest: Tensor = self.down3(x_BCDHW)
        return deepest
