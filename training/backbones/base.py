"""Backbones: settings from which an encoder and a pyramid decoder are built; and EncoderSpec, their serialised form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from torch import nn

from crossdim.training.backbones.decoder import Decoder3D, Triple
from crossdim.training.layers.dual_norm import Norm


class BackboneSettings(ABC):
    """An architecture. Subclasses are frozen, keyword-only dataclasses with a field ``in_channels``.

    Encoders and decoders have a method ``units() -> list[nn.Module]``: the stages or blocks, none inside another, to which
    :func:`~crossdim.training.layers.recompute.enable_recomputation` may be applied. Every parameter takes part in every
    forward pass. An input that cannot be encoded raises GeometryError.

    Attributes:
        kind: name in ``crossdim.training.backbones.BACKBONES``.
        extension: the module that registered it; None if it is one of crossdim's own.
    """

    kind: ClassVar[str]
    extension: ClassVar[str | None] = None
    in_channels: int

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Channels of the deepest feature map."""

    @property
    @abstractmethod
    def reduction(self) -> Triple:
        """How many voxels of the input one voxel of the deepest map covers, along (D, H, W)."""

    @property
    @abstractmethod
    def level_widths(self) -> Triple:
        """Channels of the decoder's three levels, deepest first."""

    @property
    @abstractmethod
    def decoder_norm(self) -> Norm:
        """Normalisation inside the decoder."""

    @property
    def side_multiple(self) -> int:
        """If every spatial side of an input is a multiple of this, the encoder can process it; some accept more."""
        return math.lcm(*self.reduction)

    @abstractmethod
    def encoder(self) -> nn.Module:
        """(B, C, D, H, W) -> the deepest feature map, (B, num_features, d, h, w); newly drawn weights."""

    def decoder(self) -> nn.Module:
        """The deepest feature map -> feature maps of three levels, deepest first, the last at the input's size."""
        return Decoder3D(self.num_features, self.level_widths, self.reduction, self.decoder_norm)


#: What happens to unit-range values before an encoder: nothing else is known.
PER_SAMPLE = "zero mean and unit deviation per sample"
UNIT_RANGE = "none: unit range, as it is"


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """Serialised description of an encoder: how to rebuild it and how to prepare its input.

    Attributes:
        backbone: name in ``crossdim.training.backbones.BACKBONES``.
        settings: keyword arguments of that backbone.
        in_channels: channels of the input (B, C, D, H, W).
        num_features: channels of the deepest feature map; its mean over space is the representation.
        side_multiple: every spatial side of the input is a multiple of this.
        normalisation: applied to unit-range values before the encoder, ``PER_SAMPLE`` or ``UNIT_RANGE``.
        pseudo3d: geometry by which an image becomes a volume; None if the encoder was not trained on unrolled images.
        preprocessing_digests: of the datasets it was trained on.
        extension: the module that defines its backbone; None, and not stored, if it is one of crossdim's own.
    """

    backbone: str
    settings: dict[str, Any]
    in_channels: int
    num_features: int
    side_multiple: int
    normalisation: str = PER_SAMPLE
    pseudo3d: dict[str, Any] | None = None
    preprocessing_digests: list[str] = field(default_factory=list)
    extension: str | None = None

    @classmethod
    def of(cls, backbone: BackboneSettings) -> EncoderSpec:
        """The spec of a backbone that has not been trained."""
        return cls(
            backbone=backbone.kind,
            settings={f.name: getattr(backbone, f.name) for f in fields(backbone)},  # type: ignore[arg-type]
            in_channels=backbone.in_channels,
            num_features=backbone.num_features,
            side_multiple=backbone.side_multiple,
            extension=backbone.extension,
        )

    def document(self) -> dict[str, Any]:
        """The spec as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "extension" or value is not None}
