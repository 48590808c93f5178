"""Windowed attention against plain attention over the whole map, and what a token can reach."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from crossdim.training.backbones.swin3d import Merging
from crossdim.training.backbones.window_attention import WindowAttention, WindowPartition

Triple = tuple[int, int, int]
triples = st.tuples(*[st.integers(1, 7)] * 3)
windows = st.tuples(*[st.integers(1, 4)] * 3)


def _cell(place: Triple, sides: Triple, window: Triple, shifted: bool) -> Triple:
    """Which window a token lies in, if windows are simply cut from an endless line: no rolling, no padding."""
    shifts = [edge // 2 if shifted and side > edge else 0 for side, edge in zip(sides, window, strict=True)]
    d, h, w = ((p - s) // edge for p, s, edge in zip(place, shifts, window, strict=True))
    return d, h, w


def _places(sides: Triple) -> list[Triple]:
    return list(itertools.product(*(range(side) for side in sides)))


def _same_cell(sides: Triple, window: Triple, shifted: bool) -> Tensor:
    cells = [_cell(place, sides, window, shifted) for place in _places(sides)]
    return torch.tensor([[a == b for b in cells] for a in cells])


def _plain(attention: WindowAttention, x_BDHWE: Tensor, window: Triple, shifted: bool, heads: int) -> Tensor:
    """Softmax attention among all tokens of a map, each pair looked up by itself, other cells masked away."""
    sides: Triple = tuple(x_BDHWE.shape[1:4])  # type: ignore[assignment]
    places, same = _places(sides), _same_cell(sides, window, shifted)
    table = attention.bias.table.view(*(2 * e - 1 for e in window), heads)
    bias = torch.full((heads, len(places), len(places)), -torch.inf, dtype=x_BDHWE.dtype)
    for (i, p), (j, q) in itertools.product(enumerate(places), repeat=2):
        if same[i, j]:
            bias[:, i, j] = table[tuple(a - b + e - 1 for a, b, e in zip(p, q, window, strict=True))]
    query, key, value = attention.qkv(x_BDHWE.flatten(1, 3)).chunk(3, dim=-1)
    results = []
    for head, (q, k, v) in enumerate(zip(*(t.chunk(heads, dim=-1) for t in (query, key, value)), strict=True)):
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + bias[head]
        results.append(scores.softmax(dim=-1) @ v)
    out: Tensor = attention.out(torch.cat(results, dim=-1)).view(x_BDHWE.shape)
    return out


def _attention(window: Triple, shifted: bool) -> WindowAttention:
    attention = WindowAttention(8, 2, window, shifted).double()
    for p in attention.parameters():
        torch.nn.init.normal_(p)
    return attention


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(1, 5)] * 3), windows, st.booleans())
@example((4, 4, 2), (2, 2, 1), True)
@example((5, 3, 4), (2, 4, 3), True)
@example((5, 3, 4), (2, 4, 3), False)
def test_windows_of_any_size_equal_plain_attention_with_the_same_bias(sides: Triple, window: Triple, shifted: bool) -> None:
    """Maps that are not tiled, maps smaller than a window, shifted or not; no token gives weight to padding."""
    attention = _attention(window, shifted)
    x = torch.randn(2, *sides, 8, dtype=torch.float64)
    assert torch.allclose(attention(x), _plain(attention, x, window, shifted, 2), atol=1e-10)


@pytest.mark.parametrize("window", [(4, 5, 3), (4, 7, 7)], ids=["exact", "larger"])
def test_one_window_over_the_whole_map_is_plain_attention(window: Triple) -> None:
    """By PyTorch's own attention; shifted or not, for one window has nowhere to shift to."""
    x = torch.randn(2, 4, 5, 3, 8, dtype=torch.float64)
    for shifted in (False, True):
        attention = _attention(window, shifted)
        q, k, v = attention.qkv(x.flatten(1, 3)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        bias = attention.bias((4, 5, 3))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        assert torch.allclose(attention(x), attention.out(mixed.transpose(1, 2).flatten(2)).view(x.shape), atol=1e-12)


@pytest.mark.parametrize(("sides", "window"), [((2, 6, 6), (2, 3, 3)), ((3, 5, 7), (2, 2, 4)), ((4, 4, 2), (2, 4, 3))])
@pytest.mark.parametrize("shifted", [False, True])
def test_gradients_reach_the_tokens_of_the_same_window_and_no_others(sides: Triple, window: Triple, shifted: bool) -> None:
    """After a roll, both ends of a map lie in one window; they must not see each other."""
    attention = _attention(window, shifted)
    x = torch.randn(1, *sides, 8, dtype=torch.float64, requires_grad=True)
    rows = []
    for token in attention(x).flatten(0, 3):
        (gradient,) = torch.autograd.grad(token.sum(), x, retain_graph=True)
        rows.append(gradient.abs().sum(-1).flatten() > 0)
    assert torch.equal(torch.stack(rows), _same_cell(sides, window, shifted))


@given(triples, windows, st.booleans())
def test_joining_undoes_splitting(sides: Triple, window: Triple, shifted: bool) -> None:
    grid = WindowPartition.over(sides, window, shifted)
    x = torch.randn(2, *sides, 3)
    assert torch.equal(grid.join(grid.split(x)), x)


def test_merging_brings_eight_neighbours_together() -> None:
    merging = Merging(1)
    merging.norm = torch.nn.Identity()  # type: ignore[assignment]
    torch.nn.init.ones_(merging.reduce.weight)
    x = torch.arange(4 * 2 * 6, dtype=torch.float32).view(1, 4, 2, 6, 1)
    expected = torch.nn.functional.avg_pool3d(x.movedim(-1, 1), 2).movedim(1, -1) * 8
    assert torch.allclose(merging(x), expected.expand(-1, -1, -1, -1, 2))
