"""The PCRLv2 objective: restoration and agreement of views, at one random level of a feature pyramid in each step.

Source: RL4M/PCRLv2, train_3d.py lines 86-138 (the same code is in train_2d.py 111-162). As there: only view 1 is restored;
restoration at depth uses the level that was drawn for the global comparison; one level per step, not a sum; local views are
compared with both global views, each at a level of its own; every comparison is symmetric, with the gradient stopped at the
compared projection; all weights are 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

#: ``random`` is PCRLv2's; ``all`` (ours) uses the mean over levels wherever it draws one: less variance, the same mean.
LevelMode = Literal["random", "all"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Projection z and prediction q of one view at one level, (B, C) each."""

    z: Tensor
    q: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnLevels:
    """The levels of a pyramid that take part in a step, from 0, the deepest.

    Attributes:
        compared: levels of the global comparison and of deep restoration.
        local: for each local view, the levels at which it is compared with global view 1 and with global view 2.
    """

    compared: tuple[int, ...]
    local: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @property
    def projected(self) -> frozenset[int]:
        """Levels whose projections are compared anywhere."""
        return frozenset(self.compared).union(*(levels for pair in self.local for levels in pair))


def draw_levels(rng: np.random.Generator, count: int, num_local: int, mode: LevelMode) -> DrawnLevels:
    """Draw the levels that take part in a step.

    Args:
        rng: the same on all ranks.
        count: levels of the pyramid.
        num_local: local views of a sample.
        mode: one random level in each comparison, or all.

    Returns:
        One level for every comparison, or all ``count`` levels.
    """
    if mode == "all":
        every = tuple(range(count))
        return DrawnLevels(compared=every, local=((every, every),) * num_local)
    compared = (int(rng.integers(count)),)
    return DrawnLevels(
        compared=compared, local=tuple(((int(a),), (int(b),)) for a, b in rng.integers(count, size=(num_local, 2)))
    )


def similarity(a: Pair, b: Pair) -> Tensor:
    """Negative symmetric cosine similarity: -1 is agreement, 1 is opposition.

    -1/2 (mean cos(q_a, sg z_b) + mean cos(q_b, sg z_a)), where sg stops the gradient.

    Args:
        a: projection and prediction of one view, (B, C) each.
        b: of the other view.

    Returns:
        A scalar, from -1 to 1.
    """
    forth = F.cosine_similarity(a.q, b.z.detach(), dim=1).mean()
    back = F.cosine_similarity(b.q, a.z.detach(), dim=1).mean()
    return -(forth + back) / 2


def scale_weight(progress: float) -> float:
    """Weight of restoration at depth: half a cosine from 1 to 0 over the run (over 240 epochs in PCRLv2)."""
    return float(0.5 * (1 + np.cos(np.pi * progress)))


def local_similarity(one: Sequence[Pair], two: Sequence[Pair], local: Sequence[Sequence[Pair]], drawn: DrawnLevels) -> Tensor:
    """Mean similarity of every local view with both global views, each at the levels drawn for this comparison.

    Args:
        one: pairs of global view 1, by level.
        two: pairs of global view 2, by level.
        local: for each local view, its pairs by level.
        drawn: levels of the comparisons.

    Returns:
        A scalar, from -1 to 1.
    """
    terms = [
        similarity(view[level], crop[level])
        for crop, levels in zip(local, drawn.local, strict=True)
        for view, chosen in zip((one, two), levels, strict=True)
        for level in chosen
    ]
    return torch.stack(terms).mean()


def restoration(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error in unit range, in float32 at least.

    Args:
        restored: predictions, any shape.
        clean: the target, the same shape.

    Returns:
        A scalar.
    """
    return F.mse_loss(restored.to(clean.dtype), clean)


def compute_losses(
    *,
    one: Sequence[Pair],
    two: Sequence[Pair],
    local: Sequence[Sequence[Pair]],
    restored: Tensor,
    restored_deep: Sequence[Tensor],
    clean: Tensor,
    drawn: DrawnLevels,
    progress: float,
) -> dict[str, Tensor]:
    """Compute the four terms of the objective, each of weight 1.

    Args:
        one: pairs of global view 1, by level.
        two: pairs of global view 2, by level.
        local: for each local view, its pairs by level.
        restored: view 1 as the network restores it, (B, 1, D, H, W) in unit range.
        restored_deep: the same from each level that is compared, at the input's size.
        clean: view 1 before it was distorted, (B, 1, D, H, W).
        drawn: levels that take part.
        progress: position in the run, from 0 to 1.

    Returns:
        Scalars ``pixel``, ``semantic``, ``local`` and ``scale``.
    """
    return {
        "pixel": restoration(restored, clean),
        "semantic": torch.stack([similarity(one[level], two[level]) for level in drawn.compared]).mean(),
        "local": local_similarity(one, two, local, drawn),
        "scale": scale_weight(progress) * torch.stack([restoration(deep, clean) for deep in restored_deep]).mean(),
    }
