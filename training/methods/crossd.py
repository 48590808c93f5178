"""Cross-D, self-supervised and hybrid: images use 2D slices of 3D kernels, volumes the kernels themselves, in one update.

Our implementation of what the authors of Cross-D Conv (arXiv 2411.02441) name as future work. They trained on labelled
images only; the objective (SimSiam), views, weights and sizes here are ours. Images are not used as pseudo-3D here: stored
pseudo-3D is folded back to the image, which is convolved with a plane of each kernel that depends on the image.
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
from crossdim.training.methods.base import ENCODER, Method, MethodConfig, Step, StepOutput, mean_over_space
from crossdim.training.methods.sample_views import SampleViews
from crossdim.training.objectives.collapse import evenness
from crossdim.training.objectives.simsiam import SiamesePair, similarity


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossD(MethodConfig):
    """Settings: network, views, and the widths of SimSiam's heads.

    Attributes:
        backbone: the network.
        views: what is cut from a sample.
        projection: channels of SimSiam's projection head.
        bottleneck: channels inside SimSiam's prediction head.
    """

    kind: ClassVar[str] = "cross-d"
    accepts: ClassVar[frozenset[Presentation]] = frozenset(Presentation)
    # Batch norm of two samples has no gradient.
    min_rank_batch: ClassVar[int] = 3
    compares: ClassVar[bool] = True

    backbone: BackboneSettings = field(default_factory=ResNetSettings)
    views: SampleViews = field(default_factory=SampleViews)
    projection: int = 2048
    bottleneck: int = 512

    def __post_init__(self) -> None:
        if min(self.projection, self.bottleneck) < 1:
            raise RunError(f"widths of the heads are at least 1; found {self.projection} and {self.bottleneck}")

    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Draw two views of a sample.

        Source: the comparison of two views is SimSiam's; over images and volumes in one update, the authors name it future work.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views; None for superpatches and plain images.
            rng: generator of the sample's position in the run.

        Returns:
            ``view1`` and ``view2``, (1, H, W) of an image, (1, D, H, W) of a volume.
        """
        one, two = self.views.pair(sample, pseudo3d, rng)
        return {"view1": one, "view2": two}

    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole sample at the size of the views.

        Args:
            sample: as stored.
            pseudo3d: as for :meth:`draw`.

        Returns:
            ``x``, normalised, and ``target`` in unit range; (1, H, W) of an image, (1, D, H, W) of a volume.
        """
        return self.views.whole(sample, pseudo3d)

    def encoder_geometry(self, pseudo3d: Pseudo3D | None) -> None:
        """None: images are not unrolled here."""

    def build(self) -> CrossDNet:
        """The network."""
        return CrossDNet(self)


class CrossDNet(Method):
    """An encoder for images and volumes, and SimSiam's heads, shared by both."""

    def __init__(self, config: CrossD) -> None:
        super().__init__()
        self.encoder = config.backbone.encoder()
        self.heads = SiamesePair(config.backbone.num_features, config.projection, config.bottleneck)
        self.encoder_spec = EncoderSpec.of(config.backbone)

    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Compute the negative similarity of the two views of each sample.

        Source: SimSiam (arXiv 2011.10566), over images and volumes in one update (ours).

        Args:
            batch: tensors ``view1`` and ``view2``, (B, 1, H, W) or (B, 1, D, H, W).
            step: not used.

        Returns:
            Loss ``agreement``, -1 to 1; monitor ``evenness`` of the projections.
        """
        one, two = (self.heads(mean_over_space(self.encoder(batch.tensors[name]))) for name in ("view1", "view2"))
        return StepOutput(
            {"agreement": similarity(one, two) + zero_of_rotation_nets(self.encoder)}, {"evenness": evenness(one.z)}
        )

    def embed(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Features of the encoder and SimSiam's projections, of both views."""
        features = [mean_over_space(self.encoder(batch.tensors[name])) for name in ("view1", "view2")]
        return {ENCODER: features, "z": [self.heads(one).z for one in features]}

    def units(self) -> list[nn.Module]:
        """Blocks of the encoder."""
        return list(self.encoder.units())  # type: ignore[operator]

    def reconstruct(self, x: Tensor) -> None:
        """None: this method reconstructs nothing."""


def zero_of_rotation_nets(encoder: nn.Module) -> Tensor:
    """A zero that depends on the parameters of all rotation nets.

    A batch of volumes does not use these networks, but with several ranks every parameter must have a gradient.
    """
    parameters = [p.sum() for name, p in encoder.named_parameters() if "rotation_params" in name]
    return 0.0 * torch.stack(parameters).sum() if parameters else torch.zeros(())
