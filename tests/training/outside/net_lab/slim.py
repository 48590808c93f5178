"""A backbone: three convolutions of stride 2."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from crossdim.training.backbones.base import BackboneSettings
from crossdim.training.layers.dual_norm import Norm


@dataclass(frozen=True, kw_only=True, slots=True)
class SlimSettings(BackboneSettings):
    kind: ClassVar[str] = "slim"

    in_channels: int = 1
    width: int = 8

    @property
    def num_features(self) -> int:
        return self.width

    @property
    def reduction(self) -> tuple[int, int, int]:
        return 8, 8, 8

    @property
    def level_widths(self) -> tuple[int, int, int]:
        return self.width, self.width, self.width

    @property
    def decoder_norm(self) -> Norm:
        return "in"

    def encoder(self) -> nn.Module:
        return SlimEncoder(self)


class SlimEncoder(nn.Sequential):
    def __init__(self, settings: SlimSettings) -> None:
        widths = (settings.in_channels, settings.width, settings.width, settings.width)
        super().__init__(*(nn.Conv3d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)))

    def units(self) -> list[nn.Module]:
        return list(self)
