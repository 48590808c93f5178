"""Loss terms on codes: variational and quantised.

Sources: Kingma and Welling, Auto-encoding variational Bayes (arXiv 1312.6114), appendix B; van den Oord et al., Neural
discrete representation learning (arXiv 1711.00937), equation 3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, 1).

    Args:
        mean: any shape.
        log_variance: the same shape.

    Returns:
        A scalar in nats, the mean over samples and dimensions.
    """
    wide = torch.promote_types(mean.dtype, torch.float32)
    mean, log_variance = mean.to(wide), log_variance.to(wide)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def linear_warmup(weight: float, progress: float, share: float) -> float:
    """A weight that rises linearly from 0 in the first part of a run.

    Args:
        weight: after the warm-up.
        progress: 0 at the start of the run, 1 at its end.
        share: fraction of the run that the warm-up takes.

    Returns:
        From 0 to ``weight``.
    """
    return weight if progress >= share else weight * progress / share


def commitment(code: Tensor, quantised: Tensor) -> Tensor:
    """Mean squared distance of codes from their codebook entries, which receive no gradient.

    Source: VQ-VAE (arXiv 1711.00937), equation 3, third term.

    Args:
        code: of the encoder.
        quantised: the nearest entries, the same shape.

    Returns:
        A scalar, in float32 at least.
    """
    wide = torch.promote_types(code.dtype, torch.float32)
    return (code.to(wide) - quantised.detach().to(wide)).square().mean()


def straight_through(code: Tensor, quantised: Tensor) -> Tensor:
    """The quantised code, whose gradient is passed to the code unchanged.

    Args:
        code: of the encoder.
        quantised: the nearest entries, the same shape.

    Returns:
        The values of ``quantised``, the same shape.
    """
    return code + (quantised - code).detach()
