"""Tokens: cutting, embedding and placing, held to closed forms and to a transcription in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import GeometryError
from crossdim.training.layers.tokens import (
    PatchEmbedding,
    count_tokens,
    gather_tokens,
    patchify,
    scatter_tokens,
    sinusoids,
    unpatchify,
    visible_mask,
)
from tests.oracles import maesil as oracle

sizes = st.tuples(*[st.integers(1, 3)] * 3)
CPU = torch.device("cpu")


def test_a_superpatch_is_4096_tokens_of_512_values() -> None:
    cube = torch.empty(1, 1, 128, 128, 128)
    assert patchify(cube, (8, 8, 8)).shape == (1, 4096, 512)
    assert cube.numel() * cube.element_size() == 8_388_608


@given(counts=sizes, patch=sizes, channels=st.integers(1, 2), batch=st.integers(1, 2))
def test_patches_are_those_of_the_oracle_and_go_back(
    counts: tuple[int, int, int], patch: tuple[int, int, int], channels: int, batch: int
) -> None:
    """Cutting is a permutation, in the stated order."""
    shape = tuple(n * p for n, p in zip(counts, patch, strict=True))
    x = torch.randn(batch, channels, *shape, dtype=torch.float64)
    rows = patchify(x, patch)
    assert torch.equal(unpatchify(rows, patch, counts), x)
    for one, volume in zip(rows, x, strict=True):
        assert np.array_equal(one.numpy(), oracle.patches(volume.numpy(), patch))


def test_tokens_are_counted_along_x_then_y_then_z() -> None:
    """Token 0 covers 0..7 on every axis; 1 starts at x = 8, 16 at y = 8, 256 at z = 8."""
    side = 128
    index = torch.arange(side)
    for axis, token in ((0, 256), (1, 16), (2, 1)):
        place = index.view([-1 if a == axis else 1 for a in range(3)]).expand(side, side, side)
        rows = patchify(place[None, None].float(), (8, 8, 8))[0]
        assert rows[0].unique().tolist() == list(range(8))
        assert rows[token].unique().tolist() == list(range(8, 16))


def test_patches_that_do_not_tile_are_refused() -> None:
    with pytest.raises(GeometryError, match="multiples"):
        count_tokens((16, 12, 16), (8, 8, 8))


@given(patch=sizes, channels=st.integers(1, 3))
@pytest.mark.integration
def test_embedding_rows_is_a_strided_convolution(patch: tuple[int, int, int], channels: int) -> None:
    embed = PatchEmbedding(channels, 12, patch)
    torch.nn.init.normal_(embed.kernel.bias)  # type: ignore[arg-type]
    x = torch.randn(2, channels, 2 * patch[0], 3 * patch[1], patch[2])
    convolved = F.conv3d(x, embed.kernel.weight, embed.kernel.bias, stride=patch)
    assert torch.allclose(embed(patchify(x, patch)), convolved.flatten(2).transpose(1, 2), atol=1e-4)


def test_at_the_papers_size_too() -> None:
    """E = 768, patches of 8^3."""
    embed = PatchEmbedding(1, 768, (8, 8, 8))
    x = torch.rand(1, 1, 16, 16, 16)
    difference = embed(patchify(x, (8, 8, 8))) - embed.kernel(x).flatten(2).transpose(1, 2)
    assert float(difference.detach().abs().max()) < 1e-4


def test_positions_have_equal_length_and_known_first_components() -> None:
    table = sinusoids((16, 16, 16), 768, CPU)
    assert torch.equal(table[0].view(3, 2, 128)[:, 0], torch.zeros(3, 128))
    assert torch.equal(table[0].view(3, 2, 128)[:, 1], torch.ones(3, 128))
    assert torch.allclose(table.square().sum(dim=1), torch.full((4096,), 384.0), atol=1e-3)
    assert torch.allclose(table.view(-1, 3, 256).square().sum(dim=2), torch.full((4096, 3), 128.0), atol=1e-3)
    assert float(table[256, 0]) == pytest.approx(0.841471, abs=1e-6)
    assert float(table[256, 128]) == pytest.approx(0.540302, abs=1e-6)
    assert len(table.unique(dim=0)) == 4096


@given(counts=sizes, share=st.integers(1, 4))
def test_positions_agree_with_the_oracle_on_any_grid(counts: tuple[int, int, int], share: int) -> None:
    table = sinusoids(counts, 6 * share, CPU).numpy()
    assert np.allclose(table, oracle.positions(counts, 6 * share), atol=1e-5)


@given(count=st.integers(1, 20), data=st.data())
def test_taking_and_putting_back_are_inverse(count: int, data: st.DataObject) -> None:
    """Visible rows come back exactly, and the ground is everywhere else."""
    ids = torch.tensor([sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=count // 2 + 1, max_size=count // 2 + 1)))])
    rows, ground = torch.randn(1, count, 5), torch.randn(5)
    placed = scatter_tokens(gather_tokens(rows, ids), ids, ground, count)
    seen = visible_mask(ids, count)
    assert torch.equal(placed[seen], rows[seen])
    assert torch.equal(placed[~seen], ground.expand(count - ids.shape[1], 5))
    assert int(seen.sum()) == ids.shape[1]


def test_mixing_tokens_add_a_gated_second_path() -> None:
    """NEMESIS' embedding: with the gate shut it is the plain one; open, every slice of the patch is heard."""
    embed = PatchEmbedding(1, 24, (4, 2, 2), mixing_tokens=4)
    rows = torch.randn(2, 3, 16, requires_grad=True)
    plain = F.linear(rows, embed.kernel.weight.permute(0, 2, 3, 4, 1).flatten(1), embed.kernel.bias)
    assert embed.mixing is not None
    embed.mixing.gate.data.fill_(-math.inf)
    assert torch.allclose(embed(rows), plain)
    embed.mixing.gate.data.fill_(math.inf)
    (heard,) = torch.autograd.grad(embed(rows).square().sum(), rows)
    assert bool((heard.abs() > 0).all())
    with pytest.raises(GeometryError, match="divide"):
        PatchEmbedding(1, 24, (4, 2, 2), mixing_tokens=5)
