"""Supervised Cross-D: the published pretraining on labelled images, and the same on volumes.

Our implementation of the recipe of Cross-D Conv (arXiv 2411.02441; code main.py, get_optim.py, presets.py): cross-entropy,
random crops and flips. Changed on purpose: every input is normalised by its own mean and deviation, not by one constant for
all datasets; the schedule belongs to the optimizer that is used; batch norm can be synchronised over ranks; samples without
a known class are left out of the loss instead of being given one; order and seeds are the run's, so that a run can be
repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
from crossdim.training.methods.base import Method, MethodConfig, Step, StepOutput, mean_over_space
from crossdim.training.methods.crossd import zero_of_rotation_nets
from crossdim.training.methods.sample_views import SampleViews

#: Class of a sample without one of the configured classes.
UNKNOWN = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossDSupervised(MethodConfig):
    """Settings: network, views, and the classes in the order of the outputs; labels come from the dataset's catalog.

    Attributes:
        classes: labels of the datasets, in the order of the network's outputs; empty for all that there are when a run begins.
        backbone: the network.
        views: what is cut from a sample.
    """

    kind: ClassVar[str] = "cross-d-supervised"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    min_rank_batch: ClassVar[int] = 2
    learns_from_labels: ClassVar[bool] = True

    classes: tuple[str, ...] = ()
    backbone: BackboneSettings = field(default_factory=ResNetSettings)
    views: SampleViews = field(default_factory=SampleViews)

    def __post_init__(self) -> None:
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            example = """--set method.classes='["ap", "pa"]'"""
            raise RunError(f"classes are two different names or more, as in {example}; found {self.classes}")

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Draw one view of a sample, with the number of its class.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views; None for superpatches and plain images.
            rng: generator of the sample's position in the run.

        Returns:
            ``view1``, (1, H, W) or (1, D, H, W), and ``label``, an int64; ``UNKNOWN`` where the class is not known.
        """
        one, _ = self.views.pair(sample, pseudo3d, rng)
        number = self.classes.index(sample.label) if sample.label in self.classes else UNKNOWN
        return {"view1": one, "label": np.asarray(number, np.int64)}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole sample at the size of the views.

        Args:
            sample: as stored.
            pseudo3d: as for :meth:`draw`.

        Returns:
            ``x``, normalised, and ``target`` in unit range; (1, H, W) of an image, (1, D, H, W) of a volume.
        """
        return self.views.whole(sample, pseudo3d)

    def label_names(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def encoder_geometry(self, pseudo3d: Pseudo3D | None) -> None:
        """None: images are not unrolled here."""

    def with_labels(self, labels: tuple[str, ...]) -> CrossDSupervised:
        """The same settings; all labels are the classes where none are named, see the base class."""
        return self if self.classes or len(labels) < 2 else replace(self, classes=labels)

    def build(self) -> CrossDClassifier:
        """The network.

        Raises:
            RunError: if no classes are named.
        """
        if not self.classes:
            raise RunError("method.classes is empty: the classes are the labels of the datasets with which a run begins")
        return CrossDClassifier(self)


class CrossDClassifier(Method):
    """An encoder for images and volumes, and one linear layer."""

    def __init__(self, config: CrossDSupervised) -> None:
        super().__init__()
        self.encoder = config.backbone.encoder()
        self.fc = nn.Linear(config.backbone.num_features, len(config.classes))
        self.encoder_spec = EncoderSpec.of(config.backbone)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Compute the cross-entropy: a mean over all samples, to which those without a known class add nothing.

        Source: Cross-D Conv (arXiv 2411.02441), its pretraining on labelled images; the same on volumes is ours.

        Args:
            batch: tensors ``view1``, (B, 1, H, W) or (B, 1, D, H, W), and ``label``, (B,) int64.
            step: not used.

        Returns:
            Loss ``cross_entropy``; monitors ``accuracy`` and ``labelled``, the share of samples with a known class.
        """
        features, labels = mean_over_space(self.encoder(batch.tensors["view1"])), batch.tensors["label"]
        with torch.autocast(features.device.type, enabled=False):
            scores = self.fc(features.to(self.fc.weight.dtype))
        known = labels != UNKNOWN
        loss = functional.cross_entropy(scores, labels, ignore_index=UNKNOWN, reduction="sum") / len(labels)
        right = (scores.detach().argmax(dim=1) == labels).sum() / known.sum().clamp_min(1)
        return StepOutput(
            {"cross_entropy": loss + zero_of_rotation_nets(self.encoder)}, {"accuracy": right, "labelled": known.float().mean()}
        )

    def units(self) -> list[nn.Module]:
        """Blocks of the encoder."""
        return list(self.encoder.units())  # type: ignore[operator]

    def reconstruct(self, x: Tensor) -> None:
        """None: this method reconstructs nothing."""
