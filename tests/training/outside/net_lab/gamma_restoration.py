"""A method: values that a gamma curve has changed are restored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import UNIT_RANGE, BackboneSettings, EncoderSpec
from crossdim.training.data.collate import Batch, Views
from crossdim.training.methods.base import Method, MethodConfig, Step, StepOutput
from crossdim.training.methods.restoration import Crops
from net_lab.gamma import random_gamma


@dataclass(frozen=True, kw_only=True, slots=True)
class GammaRestoration(MethodConfig):
    kind: ClassVar[str] = "gamma-restoration"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    min_rank_batch: ClassVar[int] = 0

    backbone: BackboneSettings
    crops: Crops = field(default_factory=Crops)
    strength: float = 0.5

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        target = self.crops.draw(sample, pseudo3d, rng)["x"]
        return {"x": random_gamma(target, rng, self.strength), "target": target}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        return self.crops.whole(sample, pseudo3d)

    def build(self) -> Method:
        return _Network(self.backbone)


class _Network(Method):
    def __init__(self, backbone: BackboneSettings) -> None:
        super().__init__()
        side = backbone.reduction
        self.encoder = backbone.encoder()
        self.decoder = nn.ConvTranspose3d(backbone.num_features, backbone.in_channels, side, stride=side)
        self.encoder_spec = replace(EncoderSpec.of(backbone), normalisation=UNIT_RANGE)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        error = self.reconstruct(batch.tensors["x"]) - batch.tensors["target"]
        return StepOutput({"mse": error.square().mean()}, {})

    def reconstruct(self, x: Tensor) -> Tensor:
        restored: Tensor = self.decoder(self.encoder(x))
        return restored
