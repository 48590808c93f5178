"""Masked reconstruction: the error of hidden patches only.

Axes: B batch, N tokens, X values of a patch. Source: code, NEMESIS, mae.py 699-732; ``norm_pix`` is from masked
autoencoders (arXiv 2111.06377).
"""

from __future__ import annotations

import torch
from torch import Tensor


def normalise_patches(target_BNX: Tensor) -> Tensor:
    """Every patch with zero mean and unit deviation."""
    mean = target_BNX.mean(dim=-1, keepdim=True)
    variance = target_BNX.var(dim=-1, keepdim=True)
    return (target_BNX - mean) * (variance + 1e-6).rsqrt()


def masked_mse(predicted_BNX: Tensor, target_BNX: Tensor, seen_BN: Tensor, *, norm_pix: bool = False) -> Tensor:
    """Mean squared error over hidden patches; over all of them if none is hidden.

    Args:
        predicted_BNX: predictions for every token.
        target_BNX: the clean patches.
        seen_BN: which tokens were visible; equally many in each sample.
        norm_pix: compare with normalised patches.

    Returns:
        A scalar.
    """
    wide = torch.promote_types(predicted_BNX.dtype, torch.float32)
    target = target_BNX.to(wide)
    error = (predicted_BNX.to(wide) - (normalise_patches(target) if norm_pix else target)).square().mean(dim=-1)
    # One formula for both cases, without waiting for the device to know whether anything is hidden.
    weight = torch.where(seen_BN.all(dim=1, keepdim=True), torch.ones_like(error), (~seen_BN).to(wide))
    return (error * weight).sum() / weight.sum()
