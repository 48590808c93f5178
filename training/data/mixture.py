"""Mixture: which dataset each slot of a cycle belongs to, and how many of that dataset's slots precede it. Exact in every cycle.

Short cycles are a smooth weighted round-robin, stored as a table. Long ones, such as those of weights that are counts of samples,
are computed: the last dataset is spread evenly over the slots (slot s belongs to it if floor((s + 1) w / W) exceeds
floor(s w / W)), the one before it over the remaining slots, and so on. The cost of either does not depend on the position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import RunError

Ints = npt.NDArray[np.int64]
#: Cycles of up to this many slots are a table, which is built in a tenth of a second. Ours.
LONGEST_TABLE = 100_000
#: Slots of the longest cycle, so that a slot times a weight fits into 63 bits.
LONGEST_CYCLE = 2**31
#: Weights are often rounded decimals, such as 0.33 for a third: proportions may be simplified by as much as this.
TOLERANCE = Fraction(1, 1000)
#: The smallest share that a dataset may have of a mixture, which the longest cycle still holds within TOLERANCE.
SMALLEST_SHARE = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Mixture:
    """A cycle in which every dataset has as many slots as its weight."""

    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.length > LONGEST_CYCLE:
            raise RunError(f"a mixture has cycles of at most {LONGEST_CYCLE} slots; the weights {self.weights} add up to more")

    @property
    def length(self) -> int:
        """Slots of a cycle."""
        return sum(self.weights)

    @cached_property
    def _table(self) -> tuple[Ints, Ints]:
        """Dataset of each slot, and the slots of each dataset before each slot, (datasets, slots + 1)."""
        credit = [0] * len(self.weights)
        slots = []
        for _ in range(self.length):
            credit = [have + weight for have, weight in zip(credit, self.weights, strict=True)]
            slots.append(credit.index(max(credit)))
            credit[slots[-1]] -= self.length
        pattern = np.array(slots, np.int64)
        taken = pattern == np.arange(len(self.weights))[:, None]
        before = np.concatenate([np.zeros((len(self.weights), 1), np.int64), np.cumsum(taken, axis=1)], axis=1)
        return pattern, before

    def at(self, slots: Ints) -> tuple[Ints, Ints]:
        """The dataset of each slot of a cycle, and how many slots of the same dataset precede it in the cycle."""
        if self.length <= LONGEST_TABLE:
            pattern, before = self._table
            dataset = pattern[slots]
            return dataset, before[dataset, slots]
        counts, after = self.before(slots), self.before(slots + 1)
        dataset = (after - counts).argmax(axis=0)
        return dataset, np.take_along_axis(counts, dataset[None], axis=0)[0]

    def before(self, slots: Ints) -> Ints:
        """How many slots of each dataset precede each slot of a cycle, (datasets, slots)."""
        if self.length <= LONGEST_TABLE:
            return self._table[1][:, slots]
        counts, rest = [], slots
        for weight, length in zip(self.weights[:0:-1], list(accumulate(self.weights))[:0:-1], strict=True):
            counts.append(rest * weight // length)
            rest = rest - counts[-1]
        return np.stack([rest, *reversed(counts)])

    def counts(self, size: int) -> Ints:
        """Slots of each dataset in each run of ``size`` consecutive slots, until a cycle begins again.

        Returns:
            (datasets, runs). For a cycle that is not stored as a table, one run stands for all, with the smallest number of slots
            that each dataset can have in any.
        """
        if self.length > LONGEST_TABLE:
            return self._fewest(size)
        first = np.arange(self.length // math.gcd(size, self.length), dtype=np.int64) * size
        cycles, slots = np.divmod(np.stack([first, first + size]), self.length)
        before = cycles * np.array(self.weights, np.int64)[:, None, None] + self.before(slots)
        found: Ints = before[:, 1] - before[:, 0]
        return found

    def _fewest(self, size: int) -> Ints:
        counts, rest = [], size
        for weight, length in zip(self.weights[:0:-1], list(accumulate(self.weights))[:0:-1], strict=True):
            counts.append(rest * weight // length)
            rest = rest * (length - weight) // length
        return np.array([rest, *reversed(counts)], np.int64)[:, None]


def integer_weights(weights: Sequence[float]) -> list[int]:
    """Mixture weights as the smallest integers in the same proportions: 0.6 and 0.4 are 3 and 2.

    Proportions may be simplified within TOLERANCE, so that 0.333 and 0.667 do not make a cycle of 1,000.

    Raises:
        RunError: if a weight is not a positive number, or a share is below SMALLEST_SHARE.
    """
    if not weights or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise RunError(f"mixture weights are positive numbers; found {_format_weights(weights)}")
    exact = [Fraction(repr(float(weight))) for weight in weights]
    least = min(exact) / sum(exact)
    if least < SMALLEST_SHARE:
        raise RunError(
            f"the mixture weights {_format_weights(weights)} give one dataset a share of {float(least):.2g} of the samples; "
            f"the smallest is one in {SMALLEST_SHARE.denominator:,}: give it a larger weight, or leave it out"
        )
    simple = [weight.limit_denominator(1000) for weight in exact]
    return _integers(simple if _alike(simple, exact) else exact)


def _integers(fractions: Sequence[Fraction]) -> list[int]:
    common = math.lcm(*(f.denominator for f in fractions))
    integers = [int(f * common) for f in fractions]
    if sum(integers) // math.gcd(*integers) > LONGEST_CYCLE:
        integers = [round(Fraction(i * (LONGEST_CYCLE - len(fractions)), sum(integers))) for i in integers]
    divisor = math.gcd(*integers)
    return [i // divisor for i in integers]


def _alike(some: Sequence[Fraction], others: Sequence[Fraction]) -> bool:
    """Whether two lists of weights stand for the same shares, within TOLERANCE."""
    return min(some) > 0 and all(
        abs(one * sum(others) - other * sum(some)) <= TOLERANCE * other * sum(some)
        for one, other in zip(some, others, strict=True)
    )


def _format_weights(weights: Sequence[float]) -> str:
    return ", ".join(repr(float(weight)).removesuffix(".0") for weight in weights) or "none"
