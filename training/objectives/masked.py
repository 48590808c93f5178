"""Masked reconstruction: the error of hidden patches, or of all.

Axes: B batch, N tokens, X values of a patch. Source: code, NEMESIS, mae.py 699-732; ``norm_pix`` is from masked
autoencoders (arXiv 2111.06377).
"""

from __future__ import annotations

from math import floor
from typing import Literal

import torch
from torch import Tensor

#: Which patches a loss is of. ``masked``: code, NEMESIS; ``all`` is ours.
LossOn = Literal["masked", "all"]


def normalise_patches(target_BNX: Tensor) -> Tensor:
    """Every patch with zero mean and unit deviation."""
    mean = target_BNX.mean(dim=-1, keepdim=True)
    variance = target_BNX.var(dim=-1, keepdim=True)
    return (target_BNX - mean) * (variance + 1e-6).rsqrt()


def is_unmasked(index: int, share: float) -> bool:
    """Whether nothing is hidden in a step: of any n steps one after the other it is n times the share of them, give or take one.

    Args:
        index: of the step, from 0.
        share: of the steps, from 0 to 1.

    Returns:
        The same on every rank and in every start.
    """
    return floor((index + 1) * share + 1e-9) > floor(index * share + 1e-9)


def masked_mse(
    predicted_BNX: Tensor, target_BNX: Tensor, seen_BN: Tensor, *, norm_pix: bool = False, loss_on: LossOn = "masked"
) -> Tensor:
    """Mean squared error over hidden patches, or over all; over all of them if none is hidden.

    Args:
        predicted_BNX: predictions for every token.
        target_BNX: the clean patches.
        seen_BN: which tokens were visible; equally many in each sample.
        norm_pix: compare with normalised patches.
        loss_on: which patches count.

    Returns:
        A scalar.
    """
    wide = torch.promote_types(predicted_BNX.dtype, torch.float32)
    target = target_BNX.to(wide)
    error = (predicted_BNX.to(wide) - (normalise_patches(target) if norm_pix else target)).square().mean(dim=-1)
    if loss_on == "all":
        return error.mean()
    # One formula for both cases, without waiting for the device to know whether anything is hidden.
    weight = torch.where(seen_BN.all(dim=1, keepdim=True), torch.ones_like(error), (~seen_BN).to(wide))
    return (error * weight).sum() / weight.sum()
