"""Tokens: a volume cut into equal patches, which are embedded with their positions.

Axes: B batch, C channel, D depth, H height, W width, N tokens, V visible tokens, X values of a patch, E embedding. Token
n = (iz * rows + iy) * columns + ix; inside a patch, values are in the order z, y, x, channel (code: NEMESIS, mae.py 334-344).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from crossdim.storage_schema.errors import GeometryError

Counts = tuple[int, int, int]
#: Axes of a sinusoid table; each has an equal share of the embedding, half sines, half cosines.
AXES = 3


def count_tokens(shape_DHW: Counts, patch: Counts) -> Counts:
    """Count the patches along each axis.

    Args:
        shape_DHW: of the volume, voxels.
        patch: (D, H, W), voxels.

    Returns:
        (D, H, W) in patches.

    Raises:
        GeometryError: if patches do not tile the volume.
    """
    if any(side < 1 or side % edge for side, edge in zip(shape_DHW, patch, strict=True)):
        raise GeometryError(f"a volume of {shape_DHW} voxels is not tiled by patches of {patch}; sides must be multiples of them")
    depth, rows, columns = (side // edge for side, edge in zip(shape_DHW, patch, strict=True))
    return depth, rows, columns


def spatial_shape(x_BCDHW: Tensor) -> Counts:
    """Depth, height and width of a batch."""
    depth, height, width = x_BCDHW.shape[2:]
    return depth, height, width


def patchify(x_BCDHW: Tensor, patch: Counts) -> Tensor:
    """Every patch as a row of values. A permutation; nothing is computed.

    Args:
        x_BCDHW: volumes.
        patch: (D, H, W), voxels.

    Returns:
        (B, N, X).
    """
    batch, channels = x_BCDHW.shape[:2]
    (nz, ny, nx), (pz, py, px) = count_tokens(spatial_shape(x_BCDHW), patch), patch
    split = x_BCDHW.reshape(batch, channels, nz, pz, ny, py, nx, px)
    return split.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(batch, nz * ny * nx, pz * py * px * channels)


def unpatchify(patches_BNX: Tensor, patch: Counts, counts: Counts) -> Tensor:
    """The inverse of :func:`patchify`.

    Args:
        patches_BNX: rows of values.
        patch: (D, H, W), voxels.
        counts: patches along (D, H, W).

    Returns:
        (B, C, D, H, W).
    """
    batch, (nz, ny, nx), (pz, py, px) = patches_BNX.shape[0], counts, patch
    split = patches_BNX.reshape(batch, nz, ny, nx, pz, py, px, -1)
    return split.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(batch, -1, nz * pz, ny * py, nx * px)


def gather_tokens(rows_BNX: Tensor, ids_BV: Tensor) -> Tensor:
    """The rows of some tokens.

    Args:
        rows_BNX: of all tokens.
        ids_BV: which to take.

    Returns:
        (B, V, X).
    """
    return rows_BNX.gather(1, ids_BV.unsqueeze(-1).expand(-1, -1, rows_BNX.shape[-1]))


def scatter_tokens(rows_BVX: Tensor, ids_BV: Tensor, ground_X: Tensor, count: int) -> Tensor:
    """The inverse of :func:`gather_tokens`, with a constant row for all other tokens.

    Args:
        rows_BVX: of some tokens.
        ids_BV: their places.
        ground_X: row of all other tokens.
        count: N.

    Returns:
        (B, N, X).
    """
    batch, _, width = rows_BVX.shape
    ground = ground_X.to(rows_BVX.dtype).expand(batch, count, width)
    return ground.scatter(1, ids_BV.unsqueeze(-1).expand(-1, -1, width), rows_BVX)


def visible_mask(ids_BV: Tensor, count: int) -> Tensor:
    """Which tokens are visible.

    Args:
        ids_BV: places of the visible tokens.
        count: N.

    Returns:
        (B, N) booleans.
    """
    return torch.zeros(ids_BV.shape[0], count, dtype=torch.bool, device=ids_BV.device).scatter(1, ids_BV, True)


def _axis_table(length: int, width: int, device: torch.device) -> Tensor:
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=device) * (-math.log(10_000.0) / half))
    angle = torch.arange(length, device=device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sinusoids(counts: Counts, width: int, device: torch.device) -> Tensor:
    """Sinusoidal embeddings of the positions of a grid, equal shares for z, y and x, counted from 0.

    A function of coordinates, so that every grid has one: that of a superpatch, and that of an unrolled image.

    Args:
        counts: tokens along (D, H, W).
        width: of the embedding, a multiple of 6.
        device: of the result.

    Returns:
        (N, width).

    Source: code, NEMESIS, mae.py 27-79.
    """
    tables = (_axis_table(count, width // AXES, device) for count in counts)
    spread = torch.meshgrid(*(torch.arange(count, device=device) for count in counts), indexing="ij")
    return torch.cat([table[axis.flatten()] for table, axis in zip(tables, spread, strict=True)], dim=1)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, applied to rows of patches, so that only the given ones are computed.

    ``mixing_tokens`` adds NEMESIS' gated second path (code: mae.py 187-258); 0 is the plain embedding of MAESIL.
    """

    def __init__(self, in_channels: int, width: int, patch: Counts, mixing_tokens: int = 0) -> None:
        super().__init__()
        self.kernel = nn.Conv3d(in_channels, width, patch, stride=patch)
        nn.init.xavier_uniform_(self.kernel.weight.view(width, -1))
        nn.init.zeros_(self.kernel.bias)  # type: ignore[arg-type]
        self.mixing = TokenMixing(in_channels, width, patch, mixing_tokens) if mixing_tokens else None

    def forward(self, patches_BVX: Tensor) -> Tensor:
        """(B, V, X) -> (B, V, E)."""
        weight_EX = self.kernel.weight.permute(0, 2, 3, 4, 1).flatten(1)
        linear = F.linear(patches_BVX, weight_EX, self.kernel.bias)
        if self.mixing is None:
            return linear
        mixed: Tensor = self.mixing(patches_BVX, linear)
        return mixed


class TokenMixing(nn.Module):
    """A few learned tokens attend to the slices of a patch; the result is added to its embedding through a gate."""

    def __init__(self, in_channels: int, width: int, patch: Counts, tokens: int) -> None:
        super().__init__()
        if width % tokens:
            raise GeometryError(f"{tokens} mixing tokens do not divide a width of {width}")
        self._depth, part = patch[0], width // tokens
        self.slices = nn.Linear(patch[1] * patch[2] * in_channels, part)
        self.places = nn.Parameter(torch.randn(self._depth, part) * 0.01)
        self.tokens = nn.Parameter(torch.randn(tokens, part) * part**-0.5)
        self.norm, self.qkv, self.out = nn.LayerNorm(part), nn.Linear(part, 3 * part), nn.Linear(part, part)
        self.gate = nn.Parameter(torch.tensor(0.5))

    def forward(self, patches_BVX: Tensor, linear_BVE: Tensor) -> Tensor:
        """The embedding of each patch, (1 - g) times the linear and g times the mixed one, g = sigmoid(gate).

        Args:
            patches_BVX: rows of values.
            linear_BVE: linear embeddings.

        Returns:
            (B, V, E).
        """
        slices = self.slices(patches_BVX.reshape(-1, self._depth, self.slices.in_features))
        tokens = self.tokens.to(slices.dtype).expand(slices.shape[0], -1, -1)
        query, key, value = self.qkv(self.norm(torch.cat([slices + self.places, tokens], dim=1))).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query[:, self._depth :], key, value)
        gate = self.gate.sigmoid()
        gated: Tensor = (1 - gate) * linear_BVE + gate * self.out(mixed).reshape(linear_BVE.shape)
        return gated
