"""Attention: blocks by number of parameters, by transcription, and by what must not change."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from crossdim.training.layers.attention import FactorisedAttention, FactorisedBlock, FullBlock, SelfAttention, Sites, build_blocks
from tests.oracles import maesil as oracle


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_blocks_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        assert _count(FactorisedBlock(768, 8, 1024)) == 6_302_464
        assert _count(FullBlock(768, 8, 3072)) == 7_087_872


def test_a_block_agrees_with_its_transcription() -> None:
    (block,) = build_blocks("full", 1, 12, 3, 20).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    found = block(x, Sites(1, 7, None))
    assert torch.allclose(found, torch.stack([oracle.block(block, rows, 3) for rows in x]), atol=1e-12)


@given(planes=st.integers(1, 3), places=st.integers(1, 4), data=st.data())
def test_factorised_attention_joins_equal_places_and_equal_planes(planes: int, places: int, data: st.DataObject) -> None:
    """The trap of numbering visible tokens: only tokens of the same place may meet along depth, whatever is hidden."""
    total = planes * places
    size = data.draw(st.integers(1, total))
    ids = [sorted(data.draw(st.sets(st.integers(0, total - 1), min_size=size, max_size=size))) for _ in range(2)]
    layer = FactorisedAttention(8, 2).double()
    x = torch.randn(2, size, 8, dtype=torch.float64)
    found = layer(x, Sites(planes, places, torch.tensor(ids)))
    expected = torch.stack([oracle.factorised(layer, rows, one, places, 2) for rows, one in zip(x, ids, strict=True)])
    assert torch.allclose(found, expected, atol=1e-12)
    if size == total:
        assert torch.allclose(layer(x, Sites(planes, places, None)), expected, atol=1e-12)


def test_hidden_sites_leave_no_trace_and_no_nan_in_gradients() -> None:
    layer = FactorisedAttention(8, 2)
    x = torch.randn(1, 2, 8, requires_grad=True)
    layer(x, Sites(3, 4, torch.tensor([[0, 11]]))).sum().backward()
    assert x.grad is not None
    assert all(bool(torch.isfinite(p.grad).all()) for p in [x, *layer.parameters()] if p.grad is not None)


@pytest.mark.parametrize("kind", ["full", "factorised"])
def test_the_order_of_tokens_does_not_matter(kind: str) -> None:
    """Positions are in the tokens and their sites, not in their order."""
    stack = build_blocks(kind, 2, 12, 3, 24)  # type: ignore[arg-type]
    ids, x = torch.tensor([[0, 2, 3, 7, 8]]), torch.randn(1, 5, 12)
    order = torch.randperm(5)
    one, two = x, x[:, order]
    for block in stack:
        one, two = block(one, Sites(3, 3, ids)), block(two, Sites(3, 3, ids[:, order]))
    assert torch.allclose(one[:, order], two, atol=1e-5)


def test_a_token_that_sees_no_other_takes_its_own_value() -> None:
    """No row of a mask is empty, whatever a backend of attention would make of one."""
    layer, x = SelfAttention(12, 3), torch.randn(2, 4, 12)
    own = layer.out(layer.qkv(x)[..., 24:])
    assert torch.allclose(layer(x, torch.zeros(2, 4, dtype=torch.bool)), own, atol=1e-6)
    first = torch.tensor([[True, False, False, False]]).expand(2, -1)
    alone = layer(x, first)[:, 0]
    assert torch.allclose(alone, own[:, 0], atol=1e-6)


def test_residual_streams_stay_float32_under_autocast() -> None:
    stack = build_blocks("full", 2, 12, 3, 24)
    x = torch.randn(1, 5, 12)
    wide = x
    for block in stack:
        wide = block(wide, Sites(1, 5, None))
    with torch.autocast("cpu", torch.bfloat16):
        for block in stack:
            x = block(x, Sites(1, 5, None))
    assert x.dtype == torch.float32
    assert torch.allclose(x, wide, atol=0.1)


def test_full_attention_is_that_of_torch() -> None:
    """An independent implementation with the same weights."""
    ours, theirs = SelfAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(2, 6, 12)
    assert torch.allclose(ours(x), theirs(x, x, x, need_weights=False)[0], atol=1e-6)
