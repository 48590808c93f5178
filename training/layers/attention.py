"""Transformer blocks for tokens on a grid: full attention, or factorised into planes and depth.

Axes: B batch, N tokens, V visible tokens, E embedding. Residual streams are at least float32: under autocast, only what is
between two residual sums is bfloat16.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossdim.training.layers.tokens import gather_tokens, scatter_tokens, visible_mask

AttentionKind = Literal["full", "factorised"]


class Sites(NamedTuple):
    """Places of the tokens of a batch on their grid.

    Attributes:
        planes: of the grid, along depth.
        places: of each plane.
        ids_BV: places that the tokens have; None for all, in order.
    """

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
        """Attention of every token to the visible ones and to itself.

        Args:
            x_BNE: tokens.
            seen_BN: which are visible; None for all.

        Returns:
            (B, N, E).
        """
        batch, count, width = x_BNE.shape
        split = self.qkv(x_BNE).view(batch, count, 3, self._heads, width // self._heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mask = None
        if seen_BN is not None:
            # Every token attends to itself, so that no row is empty and becomes NaN.
            mask = seen_BN[:, None, None, :] | torch.eye(seen_BN.shape[1], dtype=torch.bool, device=seen_BN.device)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result


class FactorisedAttention(nn.Module):
    """Mean of attention within each plane and along depth at each place.

    NEMESIS numbers the visible tokens of a plane and attends between equal numbers, which relates different places (its encoder,
    mae.py 82-184). Here tokens are first placed on their grid and hidden sites are masked, so both are aligned.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.plane, self.axis = SelfAttention(width, heads), SelfAttention(width, heads)

    def forward(self, x_BVE: Tensor, sites: Sites) -> Tensor:
        """Attention of tokens on their grid.

        Args:
            x_BVE: tokens.
            sites: their places.

        Returns:
            (B, V, E).
        """
        count, shape = sites.planes * sites.places, (len(x_BVE), sites.planes, sites.places)
        grid, seen = x_BVE, None
        if sites.ids_BV is not None:
            grid, seen = scatter_tokens(x_BVE, sites.ids_BV, x_BVE.new_zeros(()), count), visible_mask(sites.ids_BV, count)
        grid_BDPE = grid.view(*shape, -1)
        upright = None if seen is None else seen.view(shape).transpose(1, 2).flatten(0, 1)
        inside = self.plane(grid_BDPE.flatten(0, 1), None if seen is None else seen.reshape(-1, sites.places))
        along = self.axis(grid_BDPE.transpose(1, 2).flatten(0, 1), upright)
        mean = (inside.view(grid_BDPE.shape) + along.view(len(x_BVE), sites.places, sites.planes, -1).transpose(1, 2)) / 2
        return mean.flatten(1, 2) if sites.ids_BV is None else gather_tokens(mean.flatten(1, 2), sites.ids_BV)


def build_feed_forward(width: int, hidden: int) -> nn.Sequential:
    """Build two linear layers with GELU between them.

    Args:
        width: of input and output.
        hidden: between the layers.

    Returns:
        (..., width) -> (..., width).
    """
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class FullBlock(nn.Module):
    """Pre-norm block of the vision transformer; 7,087,872 parameters at width 768, hidden 3072."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feed = SelfAttention(width, heads), build_feed_forward(width, hidden)

    def forward(self, x_BVE: Tensor, sites: Sites) -> Tensor:
        """Apply the block; positions are in the embeddings only.

        Args:
            x_BVE: tokens.
            sites: not used.

        Returns:
            (B, V, E).
        """
        x_BVE = x_BVE + self.attention(self.norm1(x_BVE))
        result: Tensor = x_BVE + self.feed(self.norm2(x_BVE))
        return result


class FactorisedBlock(nn.Module):
    """NEMESIS' block: its second norm is on the residual stream itself; 6,302,464 parameters at width 768, hidden 1024."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.feed = FactorisedAttention(width, heads), build_feed_forward(width, hidden)

    def forward(self, x_BVE: Tensor, sites: Sites) -> Tensor:
        """Apply the block.

        Args:
            x_BVE: tokens.
            sites: their places.

        Returns:
            (B, V, E).
        """
        x_BVE = self.norm2(x_BVE + self.attention(self.norm1(x_BVE), sites))
        result: Tensor = x_BVE + self.feed(x_BVE)
        return result


def build_blocks(kind: AttentionKind, depth: int, width: int, heads: int, hidden: int) -> nn.ModuleList:
    """Build a stack of blocks, initialised like masked autoencoders: Xavier-uniform matrices, biases 0.

    Args:
        kind: of attention.
        depth: number of blocks.
        width: of a token.
        heads: attention heads.
        hidden: width inside the feed-forward layers.

    Returns:
        ``depth`` blocks.
    """
    block = FullBlock if kind == "full" else FactorisedBlock
    stack = nn.ModuleList(block(width, heads, hidden) for _ in range(depth))
    for layer in stack.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return stack
