"""EncoderSpec: what one must know to build an encoder, load its weights, and feed it. Plain values, plain PyTorch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """An encoder in words.

    Attributes:
        backbone: name in ``training.backbones.BACKBONES``.
        settings: keyword arguments of that backbone.
        in_channels: channels of the input (B, C, D, H, W).
        num_features: channels of the deepest feature map; its mean over space is the representation.
        side_multiple: every spatial side of the input is a multiple of this.
        normalisation: what happens to unit-range values before the encoder.
        pseudo3d: geometry by which an image becomes a volume; None if the encoder never saw images.
        preprocessing_digests: of the datasets it was trained on.
    """

    backbone: str
    settings: dict[str, Any]
    in_channels: int
    num_features: int
    side_multiple: int
    normalisation: str = "zero mean and unit deviation per sample"
    pseudo3d: dict[str, Any] | None = None
    preprocessing_digests: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The spec as plain values."""
        return asdict(self)
