"""Attention within windows of a token map, which may be shifted; tokens that were not adjacent are masked.

Source: Liu et al., Swin (arXiv 2103.14030), in three dimensions as Video Swin (arXiv 2106.13230); one mask for shifts and
for padding, so that padding is never attended to, is ours. Axes: B batch, D depth, H height, W width of a token map, E
embedding, M windows, N tokens of a window, A attention heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossdim.training.backbones.decoder import Triple


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowPartition:
    """A partition of a token map into equal windows.

    The map is padded at its end to a multiple of the window, then rolled by the shift.

    Attributes:
        sides: tokens of the map along (D, H, W).
        edges: tokens of a window, at most those of the map.
        shift: by how many tokens windows start after the map; 0 on an axis that one window covers.
    """

    sides: Triple
    edges: Triple
    shift: Triple

    @classmethod
    def over(cls, sides: Triple, window: Triple, shifted: bool) -> WindowPartition:
        """Partition a map into windows, shifted by half a window where there are several.

        Args:
            sides: tokens of the map along (D, H, W).
            window: largest number of tokens of a window along (D, H, W).
            shifted: whether windows are shifted.

        Returns:
            The partition; windows are at most as large as the map, and axes of one window are not shifted.
        """
        d, h, w = (min(side, edge) for side, edge in zip(sides, window, strict=True))
        sd, sh, sw = (edge // 2 if shifted and side > edge else 0 for side, edge in zip(sides, window, strict=True))
        return cls(sides=sides, edges=(d, h, w), shift=(sd, sh, sw))

    @property
    def counts(self) -> Triple:
        """Number of windows per axis."""
        d, h, w = (-(-side // edge) for side, edge in zip(self.sides, self.edges, strict=True))
        return d, h, w

    @property
    def padded_sides(self) -> Triple:
        """Sides of the padded map."""
        d, h, w = (count * edge for count, edge in zip(self.counts, self.edges, strict=True))
        return d, h, w

    def split(self, x_BDHWE: Tensor) -> Tensor:
        """(B, M, N, E); zeros where the map was padded."""
        (d, h, w), (pd, ph, pw) = self.sides, self.padded_sides
        whole = F.pad(x_BDHWE, (0, 0, 0, pw - w, 0, ph - h, 0, pd - d)).roll([-s for s in self.shift], (1, 2, 3))
        (nd, nh, nw), (ed, eh, ew) = self.counts, self.edges
        cut = whole.reshape(-1, nd, ed, nh, eh, nw, ew, x_BDHWE.shape[-1]).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return cut.flatten(4, 6).flatten(1, 3)

    def join(self, x_BMNE: Tensor) -> Tensor:
        """(B, D, H, W, E): the inverse of :meth:`split`, without the padding."""
        (nd, nh, nw), (ed, eh, ew), (d, h, w) = self.counts, self.edges, self.sides
        apart = x_BMNE.reshape(-1, nd, nh, nw, ed, eh, ew, x_BMNE.shape[-1]).permute(0, 1, 4, 2, 5, 3, 6, 7)
        whole = apart.reshape(-1, *self.padded_sides, x_BMNE.shape[-1])
        return whole.roll(self.shift, (1, 2, 3))[:, :d, :h, :w]

    def neighbours(self, device: torch.device) -> Tensor | None:
        """Which tokens of a window were adjacent before the roll: (M, N, N); None if all were.

        A rolled window at the end has tokens from both ends of the map, and a padded one has padding; tokens attend only to
        those of the same kind, so that no row is empty.
        """
        if self.padded_sides == self.sides and not any(self.shift):
            return None
        kind_DHW = torch.zeros(self.padded_sides, dtype=torch.long, device=device)
        for axis, (side, padded, shift) in enumerate(zip(self.sides, self.padded_sides, self.shift, strict=True)):
            place = torch.arange(padded, device=device)
            kind = (place < shift).long() + 2 * (place >= side)
            kind_DHW = 3 * kind_DHW + kind.view([-1 if a == axis else 1 for a in range(3)])
        tiled = WindowPartition(sides=self.padded_sides, edges=self.edges, shift=self.shift)
        kind_MN = tiled.split(kind_DHW[None, ..., None])[0, ..., 0]
        return kind_MN.unsqueeze(2) == kind_MN.unsqueeze(1)


class RelativeBias(nn.Module):
    """A learned number for every head and every offset between two tokens of a window."""

    def __init__(self, window: Triple, heads: int) -> None:
        super().__init__()
        self._window = window
        # Offsets in one axis: a tensor of four axes would be treated as a kernel when a network is converted to channels last.
        self.table = nn.Parameter(torch.empty(math.prod(2 * edge - 1 for edge in window), heads))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, edges: Triple) -> Tensor:
        """(A, N, N) for a window of ``edges`` tokens, at most those of the full window; by query, then key."""
        axes = (torch.arange(edge, device=self.table.device) for edge in edges)
        place_3N = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        offset_3NN = place_3N.unsqueeze(2) - place_3N.unsqueeze(1)
        d, h, w = (offset + edge - 1 for offset, edge in zip(offset_3NN, self._window, strict=True))
        _, height, width = (2 * edge - 1 for edge in self._window)
        bias_ANN: Tensor = self.table[(d * height + h) * width + w].permute(2, 0, 1)
        return bias_ANN


class WindowAttention(nn.Module):
    """Multi-head self-attention inside the windows of a map, with a bias by relative position."""

    def __init__(self, width: int, heads: int, window: Triple, shifted: bool) -> None:
        super().__init__()
        self._heads, self._window, self._shifted = heads, window, shifted
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = RelativeBias(window, heads)

    def forward(self, x_BDHWE: Tensor) -> Tensor:
        """The same shape."""
        d, h, w = x_BDHWE.shape[1:4]
        windows = WindowPartition.over((d, h, w), self._window, self._shifted)
        x_BMNE = windows.split(x_BDHWE)
        batch, count, tokens, _ = x_BMNE.shape
        # Windows and heads share an axis, so that one mask serves the batch, and four axes let PyTorch choose a fused kernel,
        # which keeps scores in float32 whatever the precision of its inputs.
        parts = self.qkv(x_BMNE).reshape(batch, count, tokens, 3, self._heads, -1).permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        query, key, value = parts
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self._scores(windows, count))
        joined = mixed.unflatten(1, (count, self._heads)).transpose(2, 3).flatten(3)  # type: ignore[no-untyped-call]
        result: Tensor = self.out(windows.join(joined))
        return result

    def _scores(self, windows: WindowPartition, count: int) -> Tensor:
        """What is added to the products of queries and keys: (1, M A, N, N)."""
        bias_ANN: Tensor = self.bias(windows.edges)
        neighbours_MNN = windows.neighbours(bias_ANN.device)
        scores_MANN = bias_ANN.expand(count, -1, -1, -1)
        if neighbours_MNN is not None:
            scores_MANN = scores_MANN.masked_fill(~neighbours_MNN.unsqueeze(1), -torch.inf)
        return scores_MANN.flatten(0, 1).unsqueeze(0)
