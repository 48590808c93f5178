"""Single bits flipped in every kind of published object and run file: each is refused, repaired, or proved harmless.

    python -m benchmarks.bit_flips [FLIPS] [SEED]

Bits are drawn evenly over the objects of a kind, kinds in turn. Every flip is looked at through the functions that the verbs
use (open and read, verify, resume, status, load_encoder), and put back. A value that changed without a word, or an error that
is no sentence of ours, ends the measurement.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.flip_datasets import dataset_targets
from benchmarks.flip_outcome import Outcome, Target
from benchmarks.flip_runs import Run, parts_target

FLIPS, SEED = 4000, 20261126


def targets(folder: Path) -> list[Target]:
    """Every kind of object, made anew in a folder."""
    made = dataset_targets(folder)
    return [*made, *Run(folder).targets(), parts_target(folder)]


def flip(target: Target, chance: random.Random) -> Outcome:
    """Flip one bit of one object, look, and put it back.

    Raises:
        Exception: whatever a look raises, with the place of the bit in its notes.
    """
    path = chance.choice(target.paths)
    written = target.bucket.read(path)
    bit = chance.randrange(8 * len(written))
    changed = bytearray(written)
    changed[bit // 8] ^= 1 << bit % 8
    target.bucket.put(path, bytes(changed))
    try:
        return target.look(path)
    except Exception as error:
        error.add_note(f"bit {bit} of {target.bucket.where(path)} ({target.kind})")
        raise
    finally:
        target.bucket.put(path, written)


def flip_bits(made: Sequence[Target], flips: int, seed: int) -> dict[str, Counter[Outcome]]:
    """The outcomes of so many flips, by kind of object."""
    chance = random.Random(seed)
    counts: dict[str, Counter[Outcome]] = {target.kind: Counter() for target in made}
    for number in range(flips):
        target = made[number % len(made)]
        counts[target.kind][flip(target, chance)] += 1
    return counts


def table(counts: dict[str, Counter[Outcome]]) -> list[str]:
    """A row a kind, in Markdown, and the sum."""
    rows = ["| object | flips | refused | repaired | harmless | by what, or why |", "| --- | --- | --- | --- | --- | --- |"]
    total: Counter[str] = Counter()
    for kind, outcomes in counts.items():
        numbers: Counter[str] = Counter()
        for outcome, count in outcomes.items():
            numbers[outcome.kind] += count
        total += numbers
        described = "; ".join(f"{o.kind} {count}: {o.how}" for o, count in sorted(outcomes.items(), key=lambda item: -item[1]))
        rows.append(f"| {kind} | {_numbers(numbers)} | {described} |")
    return [*rows, f"| all | {_numbers(total)} | |"]


def _numbers(counts: Counter[str]) -> str:
    return " | ".join(str(n) for n in (counts.total(), counts["refused"], counts["repaired"], counts["harmless"]))


def main(flips: int = FLIPS, seed: int = SEED) -> None:
    """Print the table."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        made = targets(Path(folder))
        began = time.perf_counter()
        counts = flip_bits(made, flips, seed)
        spent = time.perf_counter() - began
    print("\n".join(table(counts)))
    print(f"\n{flips} flips, seed {seed}, {spent:.0f} s; 0 values changed unseen, 0 errors that are no sentence")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
