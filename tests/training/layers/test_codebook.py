"""Codebook: rounding, following, restarting, and agreement between ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossdim.training.layers.codebook import DEAD_BELOW, Codebook
from tests.ranks import run_on_ranks


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_code_that_is_an_entry_is_left_alone() -> None:
    """Nothing to commit to."""
    book = Codebook(8, 3, 0.99)
    codes = book.entries[torch.tensor([[1, 5], [5, 7]])].permute(2, 0, 1)[None, :, None]
    quantised, chosen = book(codes)
    assert torch.equal(quantised, codes)
    assert chosen.tolist() == [1, 5, 5, 7]


@given(entries=st.integers(2, 9), seed=st.integers(0, 99))
def test_the_nearest_entry_is_chosen(entries: int, seed: int) -> None:
    torch.manual_seed(seed)
    book, codes = Codebook(entries, 4, 0.99), torch.randn(20, 4)
    assert torch.equal(book.nearest(codes), torch.cdist(codes, book.entries).argmin(dim=1))


def test_living_entries_are_moving_averages_of_what_takes_them() -> None:
    """Held against the formula, entry by entry, over several batches."""
    torch.manual_seed(0)
    book = Codebook(4, 2, 0.9)
    book.uses.fill_(5.0)
    book.sums.copy_(book.entries * 5)
    uses, sums = book.uses.tolist(), book.sums.clone()
    for _ in range(3):
        codes = torch.randn(1, 2, 3, 3, 3)
        _, chosen = book(codes)
        rows = codes[0].flatten(1).T
        book.update(codes, chosen, _rng())
        for k in range(4):
            mine = rows[chosen == k]
            uses[k] = 0.9 * uses[k] + 0.1 * len(mine)
            sums[k] = 0.9 * sums[k] + 0.1 * mine.sum(dim=0)
            assert uses[k] > DEAD_BELOW * 27 / 4
            assert torch.allclose(book.entries[k], sums[k] / uses[k], atol=1e-5)


def test_entries_that_nothing_takes_are_restarted_at_codes_of_the_batch() -> None:
    book = Codebook(16, 2, 0.99)
    book.entries.fill_(100.0)
    book.entries[0] = 0
    codes = torch.randn(2, 2, 4, 4, 4)
    _, chosen = book(codes)
    assert chosen.unique().tolist() == [0]
    book.update(codes, chosen, _rng())
    known = codes.movedim(1, -1).flatten(0, -2)
    assert bool((torch.cdist(book.entries, known).min(dim=1).values < 1e-5)[1:].all())
    assert len(book.entries.unique(dim=0)) > 12
    assert len(book(codes)[1].unique()) > 8


def test_a_book_learns_clusters() -> None:
    """Four tight clusters, eight entries: after some batches every code is near an entry."""
    torch.manual_seed(1)
    centres, book = torch.randn(4, 3) * 10, Codebook(8, 3, 0.9)
    for _ in range(60):
        codes = (centres[torch.randint(4, (2, 2, 2, 2))] + 0.01 * torch.randn(2, 2, 2, 2, 3)).movedim(-1, 1)
        quantised, chosen = book(codes)
        book.update(codes, chosen, _rng())
    assert float((codes - quantised).abs().max()) < 0.1


def _rank(rank: int, world: int, folder: str, borrowed: bool) -> None:
    torch.manual_seed(0)
    book, codes = Codebook(8, 3, 0.9), torch.randn(3, 3, 2, 2, 2)
    mine = codes[:1] if rank == 0 else codes if borrowed else codes[1:]
    book.update(mine, book(mine)[1], _rng(), counted=rank > 0 or not borrowed)
    torch.save(book.state_dict(), f"{folder}/{rank}.pt")


@pytest.mark.parametrize("borrowed", [False, True])
@pytest.mark.integration
def test_uneven_ranks_keep_one_book(borrowed: bool, tmp_path: Path) -> None:
    """Sums are taken over all ranks, so each of them holds the same entries, and living ones are those of the whole batch.

    So it is where the first rank has no sample of its own, and holds one of the other's.
    """
    run_on_ranks(2, _rank, str(tmp_path), borrowed)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(0)
    book, codes = Codebook(8, 3, 0.9), torch.randn(3, 3, 2, 2, 2)
    chosen = book(codes)[1]
    alone = torch.bincount(chosen, minlength=8) * 0.1 >= DEAD_BELOW * len(chosen) / 8
    book.update(codes, chosen, _rng())
    assert bool(alone.any())
    assert torch.allclose(first["entries"][alone], book.entries[alone], atol=1e-6)
    assert torch.allclose(first["uses"], book.uses, atol=1e-6)
    known = codes.movedim(1, -1).flatten(0, -2)
    assert float(torch.cdist(first["entries"][~alone], known).min(dim=1).values.max()) < 1e-5
