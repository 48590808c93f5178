"""SimSiam: two views of a sample agree, one predicting the other; only the stopped gradient prevents collapse.

Source: Chen and He, Exploring simple siamese representation learning (arXiv 2011.10566): projector of three layers,
predictor of two with a bottleneck, symmetric negative cosine with a stopped gradient. The comparison is the one of PCRLv2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossdim.training.objectives.pcrlv2 import Pair, similarity

__all__ = ["SiamesePair", "similarity"]


class SiamesePair(nn.Module):
    """Projector and predictor: features (B, C) to projection and prediction, (B, projection) each."""

    def __init__(self, num_features: int, projection: int, bottleneck: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            *_layer(num_features, projection),
            *_layer(projection, projection),
            nn.Linear(projection, projection, bias=False),
            nn.BatchNorm1d(projection, affine=False),
        )
        self.predict = nn.Sequential(*_layer(projection, bottleneck), nn.Linear(bottleneck, projection))

    def forward(self, features_BC: Tensor) -> Pair:
        """Projection and prediction, in float32 at least, whatever the networks run in."""
        with torch.autocast(features_BC.device.type, enabled=False):
            z = self.project(features_BC.to(torch.promote_types(features_BC.dtype, torch.float32)))
            return Pair(z, self.predict(z))


def _layer(width_in: int, width_out: int) -> list[nn.Module]:
    return [nn.Linear(width_in, width_out, bias=False), nn.BatchNorm1d(width_out), nn.ReLU(inplace=True)]
