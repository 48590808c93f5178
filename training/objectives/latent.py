"""Terms on codes: a variational one, a quantised one.

Sources: Kingma and Welling, Auto-encoding variational Bayes (arXiv 1312.6114), appendix B; van den Oord et al., Neural
discrete representation learning (arXiv 1711.00937), equation 3.
"""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of N(mean, variance) from N(0, 1): a mean over samples and dimensions (nats each)."""
    wide = torch.promote_types(mean.dtype, torch.float32)
    mean, log_variance = mean.to(wide), log_variance.to(wide)
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


def warmed_up(weight: float, progress: float, share: float) -> float:
    """A weight that rises from 0 in the first ``share`` of a run, linearly; ``progress`` is 0 at its start."""
    return weight if progress >= share else weight * progress / share


def commitment(code: Tensor, quantised: Tensor) -> Tensor:
    """How far a code is from its codebook entry, which is held fixed."""
    wide = torch.promote_types(code.dtype, torch.float32)
    return (code.to(wide) - quantised.detach().to(wide)).square().mean()


def straight_through(code: Tensor, quantised: Tensor) -> Tensor:
    """The quantised code, with gradients passed to the code as if nothing had happened."""
    return code + (quantised - code).detach()
