"""Order: which sample is at position T of a run. Pure arithmetic; the whole data state of a run is the integer T.

A mixture of datasets is exact in every cycle (see ``mixture``). Within a dataset, one pass is a keyed permutation: granules
(runs of neighbouring samples that one request could read) are dealt to lanes, and each lane visits its granules in keyed order.
Nothing is padded or dropped, and the memory used does not grow with the dataset.

Neither rank nor world size appears in the order; :meth:`Order.share` only says who reads which part of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import RunError, list_wrong_settings
from crossdim.training.data.mixture import Ints, Mixture

_U64 = np.uint64
_ROUNDS = 6
_GOLDEN = _U64(0x9E3779B97F4A7C15)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def hash_words(*words: int | Ints) -> npt.NDArray[np.uint64]:
    """A 64-bit key from a sequence of integers, which are broadcast against each other."""
    key = np.asarray(0, _U64)
    with np.errstate(over="ignore"):
        for word in words:
            key = _mix(key * _U64(3) + np.asarray(word).astype(_U64) + _GOLDEN)
    return key


def permute(x: Ints, size: int, key: npt.NDArray[np.uint64]) -> Ints:
    """Apply a keyed bijection of [0, size), without memory in proportion to ``size``.

    An alternating Feistel network on a near-square grid of at least ``size`` cells; a result outside of the range is put
    through the network again until it is inside.

    Args:
        x: numbers in [0, size).
        size: of the range.
        key: broadcasts against ``x``; each key is another permutation.

    Returns:
        The images of ``x``, the same shape.
    """
    if size == 1:
        return np.zeros_like(x)
    rows = isqrt(size - 1) + 1
    columns = -(-size // rows)
    key = np.broadcast_to(key, x.shape)
    result = _feistel(x, rows, columns, key)
    while (outside := result >= size).any():
        result[outside] = _feistel(result[outside], rows, columns, key[outside])
    return result


def _feistel(x: Ints, rows: int, columns: int, key: npt.NDArray[np.uint64]) -> Ints:
    row, column = np.divmod(x.astype(_U64), _U64(columns))
    with np.errstate(over="ignore"):
        for number in range(_ROUNDS):
            salt = key + _U64(number + 1) * _GOLDEN
            if number % 2:
                column = (column + _mix(salt ^ _mix(row)) % _U64(columns)) % _U64(columns)
            else:
                row = (row + _mix(salt ^ _mix(column)) % _U64(rows)) % _U64(rows)
    return (row * _U64(columns) + column).astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetOrder:
    """The order inside one dataset: its size, its weight in the mixture, and how its samples lie together.

    Attributes:
        num_samples: of the dataset.
        weight: slots of the dataset in each cycle of the mixture.
        granule: samples that lie together and are fetched together.
        lanes: granules that are read side by side.
        shuffled: False keeps the order of the catalog in every pass.
    """

    num_samples: int
    weight: int = 1
    granule: int = 1
    lanes: int = 64
    shuffled: bool = True

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            num_samples=self.num_samples >= 1,
            weight=self.weight >= 1,
            granule=self.granule >= 1,
            lanes=self.lanes >= 1,
        ):
            raise RunError(f"an order needs samples, a weight, a granule and lanes of at least 1; found {found}")

    def sample(self, cursor: Ints, seed: int, dataset: int) -> Ints:
        """Index of the sample at each cursor; every pass visits each sample once.

        Args:
            cursor: how many samples of this dataset came before, in all passes; int64, any shape.
            seed: of the run.
            dataset: number of the dataset in the run.

        Returns:
            Rows of the catalog, from 0; int64, the same shape.
        """
        epoch, t = np.divmod(cursor, self.num_samples)
        if not self.shuffled:
            return t
        key = hash_words(seed, dataset, epoch)
        granules, per_lane = self.num_samples // self.granule, self.num_samples // self.granule // self.lanes
        body = per_lane * self.granule * self.lanes
        whole = granules * self.granule
        index = np.empty_like(t)
        for here, lanes, start, size in (
            (t < body, self.lanes, 0, self.granule),
            ((t >= body) & (t < whole), granules - per_lane * self.lanes, body, self.granule),
            (t >= whole, 1, whole, self.num_samples - whole),
        ):
            if here.any():
                index[here] = self._deal(t[here] - start, key[here], lanes, start, size, granules)
        return index

    def _deal(self, t: Ints, key: npt.NDArray[np.uint64], lanes: int, start: int, size: int, granules: int) -> Ints:
        """Samples of a stretch whose granules are dealt to ``lanes``; ``start`` samples were dealt before it."""
        lane, step = t % lanes, t // lanes
        per_lane = max(1, granules // self.lanes) if lanes == self.lanes and start == 0 else 1
        # Lanes start at different places of their granules, so that new granules do not all open in the same step.
        walk = (step + lane * size // lanes) % (per_lane * size)
        dealt = walk // size * lanes + lane + start // self.granule
        last = size != self.granule
        granule = np.full_like(dealt, granules) if last else permute(dealt, granules, key)
        return granule * self.granule + permute(walk % size, size, hash_words(key.view(np.int64), granule))


@dataclass(frozen=True)
class Order:
    """The order of a run.

    Attributes:
        seed: of the run.
        datasets: that it mixes.
        stretch: how many consecutive positions belong to one dataset.
    """

    seed: int
    datasets: tuple[DatasetOrder, ...]
    stretch: int = 1

    @cached_property
    def mixture(self) -> Mixture:
        """The cycle of datasets."""
        return Mixture(tuple(c.weight for c in self.datasets))

    @property
    def period(self) -> int:
        """Number of positions after which the mixture begins again."""
        return self.mixture.length * self.stretch

    def dataset_at(self, positions: Ints) -> Ints:
        """Number of the dataset at each position of the run."""
        return self.mixture.at(positions // self.stretch % self.mixture.length)[0]

    def locate(self, positions: Ints) -> tuple[Ints, Ints]:
        """Number of the dataset and index of the sample at each position of the run."""
        turn, within = np.divmod(positions, self.stretch)
        cycle, slot = np.divmod(turn, self.mixture.length)
        dataset, before = self.mixture.at(slot)
        weights = np.array(self.mixture.weights, np.int64)
        cursor = (cycle * weights[dataset] + before) * self.stretch + within
        sample = np.empty_like(positions)
        for number, order in enumerate(self.datasets):
            here = dataset == number
            if here.any():
                sample[here] = order.sample(cursor[here], self.seed, number)
        return dataset, sample

    def share(self, first: int, global_batch: int, rank: int, world: int) -> list[Ints]:
        """Positions of one step that a rank reads.

        Of a dataset's ``n`` positions, rank ``r`` takes those from ``r * n // world`` to ``(r + 1) * n // world``:
        contiguous blocks whose sizes differ by at most one, for any world size. Together the ranks read every position
        once.

        Args:
            first: position of the step.
            global_batch: positions of the step.
            rank: that reads.
            world: number of ranks.

        Returns:
            For each dataset, the positions of this rank.
        """
        positions = np.arange(first, first + global_batch, dtype=np.int64)
        dataset = self.dataset_at(positions)
        shares = []
        for number in range(len(self.datasets)):
            mine = positions[dataset == number]
            shares.append(mine[rank * len(mine) // world : (rank + 1) * len(mine) // world])
        return shares


def rng_at(seed: int, position: int) -> np.random.Generator:
    """The random generator of a position of a run, the same on every rank and after every restart.

    Args:
        seed: of the run.
        position: of the sample.

    Returns:
        A Philox generator keyed by (seed, position), at its start.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, position], _U64)))
