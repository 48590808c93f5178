"""Flipped bits in every kind of published object and run file: refused, repaired, or proved harmless; never a changed value."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bit_flips import FLIPS, SEED, flip_bits, table, targets


def _held(folder: Path, flips: int, seed: int) -> None:
    made = targets(folder)
    counts = flip_bits(made, flips, seed)
    assert sum(outcomes.total() for outcomes in counts.values()) == flips
    assert all(outcomes for outcomes in counts.values())
    assert len({target.kind for target in made}) == len(made) >= 30
    assert table(counts)[-1].startswith(f"| all | {flips} ")


@pytest.mark.integration
def test_two_hundred_flips_over_every_kind(tmp_path: Path) -> None:
    """The short form: seven of each kind, in a few seconds. A look that finds a changed value raises."""
    _held(tmp_path, 210, SEED)


@pytest.mark.slow
def test_four_thousand_flips_over_every_kind(tmp_path: Path) -> None:
    """With other bits than those of the table in ``benchmarks/README.md``."""
    _held(tmp_path, FLIPS, SEED + 1)
