"""Transformer blocks for tokens on a grid: full attention, or factorised into planes and axes.

Axes: B batch, N tokens, V visible tokens, E embedding. Residual streams are at least float32: under autocast only what lies
between two residual sums is bfloat16.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossdim.training.layers.tokens import put_back, seen_of, taken

AttentionKind = Literal["full", "factorised"]


class Sites(NamedTuple):
    """Where the tokens of a batch stand: a grid of planes and places, and which of its sites they are; None for all."""

    planes: int
    places: int
    ids_BV: Tensor | None


class SelfAttention(nn.Module):
    """Multi-head self-attention; 4 E (E + 1) parameters."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_BNE: Tensor, seen_BN: Tensor | None = None) -> Tensor:
        """What every token takes from those that are seen, and from itself."""
        batch, count, width = x_BNE.shape
        split = self.qkv(x_BNE).view(batch, count, 3, self._heads, width // self._heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mask = None
        if seen_BN is not None:
            # A token that is alone looks at itself: no row is empty, so none is NaN.
            mask = seen_BN[:, None, None, :] | torch.eye(seen_BN.shape[1], dtype=torch.bool, device=seen_BN.device)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class FactorisedAttention(nn.Module):
    """Mean of attention inside each plane and along depth at each place.

    NEMESIS numbers the visible tokens of a plane and attends between equal numbers, which joins different places (its
    encoder, mae.py 82-184). Here tokens are laid on their grid first and hidden sites are no keys, so both are aligned.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.plane, self.axis = SelfAttention(width, heads), SelfAttention(width, heads)

    def forward(self, x_BVE: Tensor, sites: Sites) -> Tensor:
        """(B, V, E) of the tokens at ``sites``."""
        count, shape = sites.planes * sites.places, (len(x_BVE), sites.planes, sites.places)
        grid, seen = x_BVE, None
        if sites.ids_BV is not None:
            grid, seen = put_back(x_BVE, sites.ids_BV, x_BVE.new_zeros(()), count), seen_of(sites.ids_BV, count)
        grid_BDPE = grid.view(*shape, -1)
        upright = None if seen is None else seen.view(shape).transpose(1, 2).flatten(0, 1)
        inside = self.plane(grid_BDPE.flatten(0, 1), None if seen is None else seen.reshape(-1, sites.places))
        along = self.axis(grid_BDPE.transpose(1, 2).flatten(0, 1), upright)
        mean = (inside.view(grid_BDPE.shape) + along.view(len(x_BVE), sites.places, sites.planes, -1).transpose(1, 2)) / 2
        return mean.flatten(1, 2) if sites.ids_BV is None else taken(mean.flatten(1, 2), sites.ids_BV)


def feed_forward(width: int, hidden: int) -> nn.Sequential:
    """Two linear maps with GELU between them."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class FullBlock(nn.Module):
    """Pre-norm block of the vision transformer; 7,087,872 parameters at width 768, hidden 3072."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feed = SelfAttention(width, heads), feed_forward(width, hidden)

    def forward(self, x_BVE: Tensor, sites: Sites) -> Tensor:
        """(B, V, E); where tokens stand is in their embedding alone."""
        x_BVE = x_BVE + self.attention(self.norm1(x_BVE))
        result: Tensor = x_BVE + self.feed(self.norm2(x_BVE))
        return result


class FactorisedBlock(nn.Module):
    """NEMESIS' block: its second norm is on the residual stream itself; 6,302,464 parameters at width 768, hidden 1024."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feed = FactorisedAttention(width, heads), feed_forward(width, hidden)

    def forward(self, x_BVE: Tensor, sites: Sites) -> Tensor:
        """(B, V, E)."""
        x_BVE = self.norm2(x_BVE + self.attention(self.norm1(x_BVE), sites))
        result: Tensor = x_BVE + self.feed(x_BVE)
        return result


def blocks(kind: AttentionKind, depth: int, width: int, heads: int, hidden: int) -> nn.ModuleList:
    """A stack of blocks, initialised as masked autoencoders are: Xavier-uniform matrices, biases 0."""
    block = FullBlock if kind == "full" else FactorisedBlock
    stack = nn.ModuleList(block(width, heads, hidden) for _ in range(depth))
    for layer in stack.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return stack
