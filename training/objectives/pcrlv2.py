"""The PCRLv2 objective: restore pixels, agree between views, at one random level of a feature pyramid each step.

Source: RL4M/PCRLv2, train_3d.py lines 86-138 (the same code is in train_2d.py 111-162). Decided on purpose, as there:
only view 1 is restored; restoration at depth uses the level that the global comparison drew; one level a step, not a
sum; local views are compared with both global views, each at a level of its own; every comparison is symmetric, with the
gradient stopped at the compared projection; all weights are 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

#: ``random`` is PCRLv2's; ``all`` (ours) takes the mean over levels wherever it draws one: less variance, the same mean.
LevelMode = Literal["random", "all"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Projection z and prediction q of one view at one level, (B, C) each."""

    z: Tensor
    q: Tensor


def drawn_levels(rng: np.random.Generator, count: int, mode: LevelMode) -> list[int]:
    """The levels that take part in a step, in restoration at depth and in the global comparison."""
    return [int(rng.integers(count))] if mode == "random" else list(range(count))


def similarity(a: Pair, b: Pair) -> Tensor:
    """-1/2 (mean cos(q_a, sg z_b) + mean cos(q_b, sg z_a)): -1 is agreement, 1 is opposition."""
    forth = F.cosine_similarity(a.q, b.z.detach(), dim=1).mean()
    back = F.cosine_similarity(b.q, a.z.detach(), dim=1).mean()
    return -(forth + back) / 2


def scale_weight(progress: float) -> float:
    """Weight of restoration at depth: half a cosine from 1 to 0 over the run (over 240 epochs in PCRLv2)."""
    return float(0.5 * (1 + np.cos(np.pi * progress)))


def local_similarity(
    one: Sequence[Pair],
    two: Sequence[Pair],
    local: Sequence[Sequence[Pair]],
    rng: np.random.Generator,
    mode: LevelMode = "random",
) -> Tensor:
    """Mean similarity of every local view with both global views, each at a freshly drawn level.

    Args:
        one: pairs of global view 1, by level.
        two: pairs of global view 2, by level.
        local: for each local view, its pairs by level.
        rng: source of the levels, equal on all ranks.
        mode: a level for every comparison, or all of them.
    """
    every = range(len(one))
    terms = [
        similarity(view[level], crop[level])
        for crop in local
        for view, drawn in zip((one, two), rng.integers(0, len(one), 2), strict=True)
        for level in ([drawn] if mode == "random" else every)
    ]
    return torch.stack(terms).mean()


def restoration(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error in unit range, in float32 at least."""
    return F.mse_loss(restored.to(clean.dtype), clean)


@torch.no_grad()
def evenness(z: Tensor) -> Tensor:
    """How evenly projections fill the unit sphere: about 1 where they do, 0 where all of them are one point.

    The mean over channels of the deviation of z / |z| over the batch, times the root of the channels (SimSiam's sign of
    collapse). (B, C) -> scalar.
    """
    unit = F.normalize(z.float(), dim=1)
    return unit.std(dim=0).mean() * math.sqrt(z.shape[1])


@torch.no_grad()
def dimensions(z: Tensor) -> Tensor:
    """How many directions projections really use: from 1, all on one line, to the smaller of B - 1 and C.

    The participation ratio of the covariance's eigenvalues, (sum)^2 / (sum of squares). Batch norm makes every channel vary, so
    evenness cannot see that all channels vary together; this can. (B, C) -> scalar.
    """
    centred = z.float() - z.float().mean(dim=0)
    gram = centred @ centred.T
    return gram.trace().square() / gram.square().sum().clamp_min(torch.finfo(torch.float32).tiny)
