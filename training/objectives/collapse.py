"""Measures of collapse: how many directions features vary in, and how they lie on the unit sphere. No probe, no labels.

Dimensions are of features about their mean: a mean that all samples share tells no two of them apart. So :func:`rank_me` differs
from the published one (Garrido et al., arXiv 2210.02885), which takes the singular values of features as they are; of features
behind a ReLU, the mean is the largest of these. Alignment and uniformity are those of Wang and Isola (arXiv 2005.10242).
"""

# Axes: N samples, C channels.
from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

#: Features whose deviations are below this share of their length are one point: what is left is rounding of float32.
ROUNDING = 1e-5
#: Wang and Isola's: of the power of distances, and of the Gaussian potential.
ALPHA, T = 2.0, 2.0


@torch.no_grad()
def evenness(z: Tensor) -> Tensor:
    """How evenly projections (B, C) are spread over the unit sphere: about 1 if evenly, 0 if all are the same point (collapse).

    The deviation of z / |z| over the batch, averaged over channels, times the square root of the number of channels (SimSiam's
    measure of collapse).
    """
    unit = F.normalize(z.float(), dim=1)
    return unit.std(dim=0).mean() * math.sqrt(z.shape[1])


def _singular_values(features_NC: Tensor) -> Tensor:
    """Singular values of features about their mean, float64; all 0 for features that are one point up to rounding."""
    wide = features_NC.double()
    centred = wide - wide.mean(dim=0)
    values: Tensor = torch.linalg.svdvals(centred)
    return values if centred.norm() > ROUNDING * wide.norm() else torch.zeros_like(values)


@torch.no_grad()
def dimensions(features_NC: Tensor) -> Tensor:
    """Participation ratio: the effective number of dimensions that features (N, C) vary in.

    (sum of l)^2 / (sum of l^2) over the eigenvalues l of the covariance: 1 on a line, C if all directions vary alike, 0 for a
    point; never above the smaller of N - 1 and C. One strong direction brings it near 1, whatever the others hold.
    """
    variances = _singular_values(features_NC).square()
    return variances.sum().square() / variances.square().sum().clamp_min(torch.finfo(torch.float64).tiny)


@torch.no_grad()
def rank_me(features_NC: Tensor) -> Tensor:
    """RankMe: the exponential of the entropy of the singular values of features (N, C), as shares of their sum.

    1 on a line, C if all directions vary alike, 0 for a point; never above the smaller of N - 1 and C. Deviations weigh here, not
    variances as in :func:`dimensions`, so that weak directions are seen beside a strong one.
    """
    values = _singular_values(features_NC)
    total = values.sum()
    if total == 0:
        return total
    shares = values / total
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy.exp()


@torch.no_grad()
def alignment(one_NC: Tensor, two_NC: Tensor) -> Tensor:
    """Mean squared distance on the unit sphere of two views of a sample: 0 if they are one point, about 2 if they are unrelated.

    Args:
        one_NC: features of one view of each sample.
        two_NC: of the other.

    Returns:
        A scalar, from 0 to 4.
    """
    one, two = (F.normalize(features.double(), dim=1) for features in (one_NC, two_NC))
    distances: Tensor = torch.linalg.vector_norm(one - two, dim=1)
    return distances.pow(ALPHA).mean()


@torch.no_grad()
def uniformity(features_NC: Tensor) -> Tensor:
    """Logarithm of the mean Gaussian potential over all pairs of samples on the unit sphere: 0 for a point, lower the more even.

    Evenly on a circle it is log(exp(-4) I0(4)) = -1.58; -4 for many dimensions.
    """
    unit = F.normalize(features_NC.double(), dim=1)
    potentials = (-T * torch.pdist(unit).square()).exp()
    return potentials.mean().log()
