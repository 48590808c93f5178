"""Cross-D from labels: the published pretraining on labelled images, and the same on volumes.

Our implementation of the recipe of Cross-D Conv (arXiv 2411.02441; code main.py, get_optim.py, presets.py): cross-entropy,
random crops and flips. Mended, each on purpose: inputs are normalised by themselves and not by one constant for every dataset;
the schedule belongs to the optimizer that is used; batch norm can be synchronised before ranks are joined; samples without a
known class count for nothing instead of being given one; order and seeds are the run's, so that a run can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import BackboneSettings, EncoderSpec
from crossdim.training.backbones.resnet import ResNetSettings
from crossdim.training.data.collate import Batch, Views
from crossdim.training.methods.base import Method, MethodConfig, Step, StepOutput
from crossdim.training.methods.crossd import idle, pooled
from crossdim.training.methods.either import EitherViews

#: Class of a sample that has none of the classes asked for.
UNKNOWN = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossDSupervised(MethodConfig):
    """Network, views, and the classes in the order of the outputs; labels are those of the dataset's catalog."""

    kind: ClassVar[str] = "cross-d-supervised"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    min_rank_batch: ClassVar[int] = 2

    classes: tuple[str, ...]
    backbone: BackboneSettings = field(default_factory=ResNetSettings)
    views: EitherViews = field(default_factory=EitherViews)

    def __post_init__(self) -> None:
        if len(set(self.classes)) < 2 or len(set(self.classes)) < len(self.classes):
            example = """--set method.classes='["ap", "pa"]'"""
            raise RunError(f"classes are two different names or more, as in {example}; found {self.classes}")

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """One view, and the number of its class."""
        one, _ = self.views.pair(sample, pseudo3d, rng)
        number = self.classes.index(sample.label) if sample.label in self.classes else UNKNOWN
        return {"view1": one, "label": np.asarray(number, np.int64)}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole sample at the size of the views."""
        return self.views.whole(sample, pseudo3d)

    def seen_as(self, pseudo3d: Pseudo3D | None) -> None:
        """Images are images here."""

    def build(self) -> CrossDClassifier:
        """The network."""
        return CrossDClassifier(self)


class CrossDClassifier(Method):
    """An encoder of either rank and one linear layer."""

    def __init__(self, config: CrossDSupervised) -> None:
        super().__init__()
        self.encoder = config.backbone.encoder()
        self.fc = nn.Linear(config.backbone.num_features, len(config.classes))
        self.encoder_spec = EncoderSpec.of(config.backbone)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Cross-entropy, a mean over all samples to which those without a class add nothing."""
        features, labels = pooled(self.encoder(batch.tensors["view1"])), batch.tensors["label"]
        with torch.autocast(features.device.type, enabled=False):
            scores = self.fc(features.to(self.fc.weight.dtype))
        known = labels != UNKNOWN
        loss = functional.cross_entropy(scores, labels, ignore_index=UNKNOWN, reduction="sum") / len(labels)
        right = (scores.detach().argmax(dim=1) == labels).sum() / known.sum().clamp_min(1)
        return StepOutput({"cross_entropy": loss + idle(self.encoder)}, {"accuracy": right, "labelled": known.float().mean()})

    def units(self) -> list[nn.Module]:
        """Blocks of the encoder."""
        return list(self.encoder.units())  # type: ignore[operator]

    def reconstruct(self, x: Tensor) -> None:
        """Nothing: this method restores no pixels."""
