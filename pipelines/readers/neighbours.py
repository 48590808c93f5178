"""How often neighbouring voxels have the same value: mostly so in label maps, seldom in images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Stored = npt.NDArray[Any]  # of any kind of number

#: Different values that pairs are counted of.
MAX_VALUES = 256
_TABLE_VALUES = 1 << 16
#: Neighbours below which a share says nothing. Ours.
_MIN_PAIRS = 100
#: Share of neighbours of one value below which values are gray. Ours: images have below 0.3, label maps above 0.85, and small
#: masks that were interpolated above 0.35.
_MAX_GRAY_AGREEMENT = 0.33
#: Every so many values are looked at for the commonest.
_SAMPLE_STEP = 7


def neighbours(array: Stored) -> list[tuple[Stored, Stored]]:
    """Along each axis, all values but the first, and all but the last."""
    return [(np.moveaxis(array, axis, 0)[1:], np.moveaxis(array, axis, 0)[:-1]) for axis in range(array.ndim)]


def distinct(array: Stored) -> Stored:
    """The different values of whole numbers, without sorting all of them where they are small."""
    low = _small_base(array)
    if low is None:
        return np.unique(array)
    met = np.zeros(int(array.max()) - low + 1, bool)
    met[array.astype(np.int32).ravel() - low] = True
    return (np.flatnonzero(met) + low).astype(array.dtype)


def _small_base(array: Stored) -> int | None:
    """The smallest value of whole numbers that are small; None for others."""
    low, high = float(array.min()), float(array.max())
    return int(low) if low > -_TABLE_VALUES and high < _TABLE_VALUES else None


def find_commonest(array: Stored) -> Any:
    """The value that most places have, as far as a sample of them tells."""
    values, counts = np.unique(array.ravel()[::_SAMPLE_STEP], return_counts=True)
    return values[counts.argmax()]


class Pairs:
    """Pairs of neighbours by their two values, of a volume that comes slice by slice."""

    def __init__(self, dtype: np.dtype[np.generic]) -> None:
        self.values: Stored = np.empty(0, dtype)
        self._numbers = np.empty(0, np.uint16)
        self._counts = np.zeros((3, MAX_VALUES * MAX_VALUES), np.int64)
        self._histogram = np.zeros(MAX_VALUES, np.int64)
        self._last: npt.NDArray[np.uint16] | None = None

    def meet(self, found: Stored) -> bool:
        """Note values that are about to be counted; whether they are few enough to be counted."""
        new = np.setdiff1d(found, self.values)
        if len(self.values) + len(new) > MAX_VALUES:
            return False
        values = np.concatenate([self.values, new])
        numbers = np.concatenate([self._numbers, np.arange(len(self.values), len(values), dtype=np.uint16)])
        order = np.argsort(values, kind="stable")
        self.values, self._numbers = values[order], numbers[order]
        return True

    def add(self, slices: Stored) -> None:
        """Count the next slices (z, y, x), of values that were met."""
        numbers = self._number(slices)
        self._histogram += np.bincount(numbers.ravel(), minlength=MAX_VALUES)
        deep = numbers if self._last is None else np.concatenate([self._last, numbers])
        for axis, (one, other) in enumerate([neighbours(deep)[0], *neighbours(numbers)[1:]]):
            pairs = one * np.uint16(MAX_VALUES) + other  # below 2^16, for numbers are below 256
            self._counts[axis] += np.bincount(pairs.ravel(), minlength=MAX_VALUES * MAX_VALUES)
        self._last = numbers[-1:]

    def _number(self, slices: Stored) -> npt.NDArray[np.uint16]:
        low = _small_base(self.values)
        if low is None:
            return self._numbers[np.searchsorted(self.values, slices)]
        table = np.zeros(int(self.values[-1]) - low + 1, np.uint16)
        table[self.values.astype(np.int64) - low] = self._numbers
        return table[slices.astype(np.int32) - low]

    def backgrounds(self) -> tuple[list[int], list[int]]:
        """What may be no label but background: the commonest value, and with it the smallest and largest, as windows cut them."""
        commonest = int(self._histogram.argmax())
        return [commonest], sorted({commonest, int(self._numbers[0]), int(self._numbers[-1])})

    def inside(self, background: Sequence[int]) -> float:
        """The share of neighbours of one value, of those of which neither is background; 1 if there are none."""
        shown = np.setdiff1d(np.arange(MAX_VALUES), background)
        counts = self._counts.sum(axis=0).reshape(MAX_VALUES, MAX_VALUES)[np.ix_(shown, shown)]
        return float(np.trace(counts) / counts.sum()) if counts.any() else 1.0

    def lowest(self, background: Sequence[int]) -> float:
        """The share of neighbours of one value, of those of which one at least is no background, along the axis of the lowest."""
        shares = []
        for counts in self._counts.reshape(3, MAX_VALUES, MAX_VALUES):
            shown = counts.sum() - counts[np.ix_(background, background)].sum()
            equal = np.trace(counts) - counts[background, background].sum()
            shares += [float(equal / shown)] if shown else []
        return min(shares, default=1.0)


class Texture:
    """Whether neighbours mostly differ, of values however many: what images do, and label maps do not."""

    def __init__(self) -> None:
        self._pairs = self._equal = 0

    def add(self, array: Stored, *, bright_background: bool = False) -> None:
        """Count the neighbours in a part, without its background: zero, its smallest value, and its commonest.

        Args:
            array: the part.
            bright_background: whether the commonest value is background also where it is the largest, as white is behind a
                photograph; of a mask it is the inside.
        """
        commonest = find_commonest(array)
        shown = (array != 0) & (array != array.min())
        if bright_background or commonest != array.max():
            shown &= array != commonest
        for (one, other), (is_shown, is_other_shown) in zip(neighbours(array), neighbours(shown), strict=True):
            both = is_shown & is_other_shown
            self._pairs += int(np.count_nonzero(both))
            self._equal += int(np.count_nonzero((one == other) & both))

    def is_gray(self) -> bool:
        """Whether enough neighbours were counted, and mostly differ."""
        return self._pairs >= _MIN_PAIRS and self._equal < _MAX_GRAY_AGREEMENT * self._pairs
