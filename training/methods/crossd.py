"""Cross-D, self-supervised and hybrid: images through the 2D use of a kernel bank, volumes through its 3D use, one update.

Our implementation of what the authors of Cross-D Conv (arXiv 2411.02441) name as future work. They trained on labelled images
alone; objective (SimSiam), views, weighing and sizes here are ours. An image is no pseudo-3D here: what was stored so is folded
back, and convolved with the plane that it turns out of the bank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import BackboneSettings, EncoderSpec
from crossdim.training.backbones.resnet import ResNetSettings
from crossdim.training.data.collate import Batch, Views
from crossdim.training.methods.base import Method, MethodConfig, Step, StepOutput
from crossdim.training.methods.either import EitherViews
from crossdim.training.objectives.simsiam import SiamesePair, dimensions, evenness, similarity


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossD(MethodConfig):
    """Network, views, and the widths of SimSiam's heads."""

    kind: ClassVar[str] = "cross-d"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    # Batch norm of two samples passes no gradient.
    min_rank_batch: ClassVar[int] = 3

    backbone: BackboneSettings = field(default_factory=ResNetSettings)
    views: EitherViews = field(default_factory=EitherViews)
    projection: int = 2048
    bottleneck: int = 512

    def __post_init__(self) -> None:
        if min(self.projection, self.bottleneck) < 1:
            raise RunError(f"widths of the heads are at least 1; found {self.projection} and {self.bottleneck}")

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Two views, (1, H, W) or (1, D, H, W)."""
        one, two = self.views.pair(sample, pseudo3d, rng)
        return {"view1": one, "view2": two}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole sample at the size of the views."""
        return self.views.whole(sample, pseudo3d)

    def seen_as(self, pseudo3d: Pseudo3D | None) -> None:
        """Images are images here."""

    def build(self) -> CrossDNet:
        """The network."""
        return CrossDNet(self)


class CrossDNet(Method):
    """An encoder of either rank, and SimSiam's heads, shared by both."""

    def __init__(self, config: CrossD) -> None:
        super().__init__()
        self.encoder = config.backbone.encoder()
        self.heads = SiamesePair(config.backbone.num_features, config.projection, config.bottleneck)
        self.encoder_spec = EncoderSpec.of(config.backbone)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Agreement of the two views of each sample."""
        one, two = (self.heads(pooled(self.encoder(batch.tensors[name]))) for name in ("view1", "view2"))
        return StepOutput(
            {"agreement": similarity(one, two) + idle(self.encoder)},
            {"evenness": evenness(one.z), "dimensions": dimensions(one.z)},
        )

    def units(self) -> list[nn.Module]:
        """Blocks of the encoder."""
        return list(self.encoder.units())  # type: ignore[operator]

    def reconstruct(self, x: Tensor) -> None:
        """Nothing: this method restores no pixels."""


def idle(encoder: nn.Module) -> Tensor:
    """0, to which the networks that turn planes contribute: a batch of volumes turns none, and ranks wait for every gradient."""
    parameters = [p.sum() for name, p in encoder.named_parameters() if "rotation_params" in name]
    return 0.0 * torch.stack(parameters).sum() if parameters else torch.zeros(())


def pooled(map_BC: Tensor) -> Tensor:
    """The mean over space of a feature map of either rank, (B, C)."""
    return map_BC.flatten(2).mean(dim=2)
