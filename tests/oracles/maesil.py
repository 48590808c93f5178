"""MAESIL's parts as their description says them, one token at a time, in NumPy; slow, and apart from ``training``.

Source: code, NEMESIS, nemesis/models/mae.py (lines named at each part), as specified; blocks are the standard ViT's.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[np.float64]


def patches(volume_CDHW: Array, edge: tuple[int, int, int]) -> Array:
    """Patches in raster order, each z, y, x, channel (lines 334-344)."""
    _, depth, height, width = volume_CDHW.shape
    rows = []
    for z in range(0, depth, edge[0]):
        for y in range(0, height, edge[1]):
            for x in range(0, width, edge[2]):
                box = volume_CDHW[:, z : z + edge[0], y : y + edge[1], x : x + edge[2]]
                rows.append(np.moveaxis(box, 0, -1).ravel())
    return np.stack(rows)


def positions(counts: tuple[int, int, int], width: int) -> Array:
    """Sinusoids (lines 27-79)."""
    rows = []
    part = width // 3
    for place in np.ndindex(*counts):
        row: list[float] = []
        for axis in place:
            angles = [axis * math.exp(-math.log(10000) * j / (part / 2)) for j in range(part // 2)]
            row += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        rows.append(row)
    return np.array(rows)


def tube_then_plane(chance: Array, spatial: float, depth: float) -> list[int]:
    """Lines 413-456, in two loops: one set of places, then some of it in each plane."""
    planes, places = chance.shape[0] - 1, chance.shape[1]
    tubes = sorted(range(places), key=lambda p: chance[0, p])[: max(1, int(places * (1 - spatial) + 1e-9))]
    visible = []
    for z in range(planes):
        order = sorted(tubes, key=lambda p: chance[1 + z, p])
        visible += [z * places + p for p in order[: max(1, int(len(tubes) * (1 - depth) + 1e-9))]]
    return sorted(visible)


def attention(layer: nn.Module, rows: Tensor, heads: int) -> Tensor:
    """Multi-head attention among rows (N, E), head by head, from the weights of ``layer.qkv`` and ``layer.out``."""
    query, key, value = (rows @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, dim=-1)  # type: ignore[union-attr, operator]
    size = rows.shape[1] // heads
    mixed = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        score = (query[:, part] @ key[:, part].T / math.sqrt(size)).exp()
        mixed.append(score / score.sum(dim=1, keepdim=True) @ value[:, part])
    result: Tensor = torch.cat(mixed, dim=1) @ layer.out.weight.T + layer.out.bias  # type: ignore[union-attr, operator]
    return result


def factorised(layer: nn.Module, rows: Tensor, ids: list[int], places: int, heads: int) -> Tensor:
    """Mean of attention among the visible tokens of a plane, and among those of a place along depth (lines 82-184)."""
    result = torch.empty_like(rows)
    for number, token in enumerate(ids):
        plane = [i for i, other in enumerate(ids) if other // places == token // places]
        column = [i for i, other in enumerate(ids) if other % places == token % places]
        inside = attention(layer.plane, rows[plane], heads)[plane.index(number)]  # type: ignore[arg-type]
        along = attention(layer.axis, rows[column], heads)[column.index(number)]  # type: ignore[arg-type]
        result[number] = (inside + along) / 2
    return result


def _normal(layer: nn.Module, rows: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    result: Tensor = scaled * layer.weight + layer.bias  # type: ignore[operator]
    return result


def block(layer: nn.Module, rows: Tensor, heads: int) -> Tensor:
    """X + attention(LN(x)), then x + MLP(LN(x)), GELU by the error function."""
    rows = rows + attention(layer.attention, _normal(layer.norm1, rows), heads)  # type: ignore[arg-type]
    first, _, last = layer.feed  # type: ignore[misc]
    inner = _normal(layer.norm2, rows) @ first.weight.T + first.bias  # type: ignore[arg-type]
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    result: Tensor = rows + inner @ last.weight.T + last.bias
    return result


def step(encoder: nn.Module, decoder: nn.Module, volume_CDHW: Array, ids: list[int], heads: tuple[int, int]) -> Tensor:
    """The loss of one sample: visible tokens, positions, blocks, mask tokens, blocks, head, error of the hidden patches."""
    edge = encoder.embed.kernel.kernel_size  # type: ignore[union-attr]
    rows = torch.from_numpy(patches(volume_CDHW, edge))  # type: ignore[arg-type]
    counts = tuple(side // e for side, e in zip(volume_CDHW.shape[1:], edge, strict=True))  # type: ignore[arg-type]
    kernel = encoder.embed.kernel.weight.permute(0, 2, 3, 4, 1).flatten(1)  # type: ignore[union-attr, operator]
    places = torch.from_numpy(positions(counts, len(kernel)))  # type: ignore[arg-type]
    h = rows[ids] @ kernel.T + encoder.embed.kernel.bias + places[ids]  # type: ignore[union-attr]
    for layer in encoder.blocks:  # type: ignore[union-attr]
        h = block(layer, h, heads[0])
    h = _normal(encoder.norm, h) @ decoder.bridge.weight.T + decoder.bridge.bias  # type: ignore[union-attr, arg-type, operator]
    grid = decoder.mask_token.repeat(len(rows), 1).clone()  # type: ignore[operator]
    grid[ids] = h
    grid = grid + torch.from_numpy(positions(counts, grid.shape[1]))  # type: ignore[arg-type]
    for layer in decoder.blocks:  # type: ignore[union-attr]
        grid = block(layer, grid, heads[1])
    predicted = _normal(decoder.norm, grid) @ decoder.head.weight.T + decoder.head.bias  # type: ignore[union-attr, arg-type, operator]
    hidden = [n for n in range(len(rows)) if n not in set(ids)] or list(range(len(rows)))
    return torch.stack([(predicted[n] - rows[n]).square().mean() for n in hidden]).mean()
