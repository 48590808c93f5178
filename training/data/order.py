"""Order: which sample stands at position T of a run. Pure arithmetic; the whole data state of a run is the integer T.

A mixture of datasets is exact in every cycle (see ``mixture``). Inside a dataset, one pass is a keyed
permutation: granules (runs of neighbouring samples that one request can fetch) are dealt to lanes, and each lane walks
its granules in keyed order. Nothing is padded, nothing is dropped, and the memory used does not grow with the dataset.

Neither rank nor world size appears in the order; :meth:`Order.share` only says who fetches which part of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import RunError, wrong_settings
from crossdim.training.data.mixture import Ints, Mixture

_U64 = np.uint64
_ROUNDS = 6
_GOLDEN = _U64(0x9E3779B97F4A7C15)


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
    return x ^ (x >> _U64(31))


def keyed(*words: int | Ints) -> npt.NDArray[np.uint64]:
    """A 64-bit key from a sequence of integers, broadcast together."""
    key = np.asarray(0, _U64)
    with np.errstate(over="ignore"):
        for word in words:
            key = _mixed(key * _U64(3) + np.asarray(word).astype(_U64) + _GOLDEN)
    return key


def permuted(x: Ints, size: int, key: npt.NDArray[np.uint64]) -> Ints:
    """Where a keyed bijection of [0, size) sends each ``x``; ``key`` broadcasts against ``x``.

    An alternating Feistel network on a near-square grid of at least ``size`` cells; results outside are walked on.
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
                column = (column + _mixed(salt ^ _mixed(row)) % _U64(columns)) % _U64(columns)
            else:
                row = (row + _mixed(salt ^ _mixed(column)) % _U64(rows)) % _U64(rows)
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
        if found := wrong_settings(
            self,
            num_samples=self.num_samples >= 1,
            weight=self.weight >= 1,
            granule=self.granule >= 1,
            lanes=self.lanes >= 1,
        ):
            raise RunError(f"an order needs samples, a weight, a granule and lanes of at least 1; found {found}")

    def sample(self, cursor: Ints, seed: int, dataset: int) -> Ints:
        """Index of the sample at each cursor of this dataset; every pass visits each sample once."""
        epoch, t = np.divmod(cursor, self.num_samples)
        if not self.shuffled:
            return t
        key = keyed(seed, dataset, epoch)
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
                index[here] = self._dealt(t[here] - start, key[here], lanes, start, size, granules)
        return index

    def _dealt(self, t: Ints, key: npt.NDArray[np.uint64], lanes: int, start: int, size: int, granules: int) -> Ints:
        """Samples of a stretch whose granules are dealt to ``lanes``; ``start`` samples were dealt before it."""
        lane, step = t % lanes, t // lanes
        per_lane = max(1, granules // self.lanes) if lanes == self.lanes and start == 0 else 1
        # Lanes start at different places of their granules, so that new granules do not all open in the same step.
        walk = (step + lane * size // lanes) % (per_lane * size)
        dealt = walk // size * lanes + lane + start // self.granule
        last = size != self.granule
        granule = np.full_like(dealt, granules) if last else permuted(dealt, granules, key)
        return granule * self.granule + permuted(walk % size, size, keyed(key.view(np.int64), granule))


@dataclass(frozen=True)
class Order:
    """The order of a run: a seed, the datasets it mixes, and how many positions in a row stay with one of them."""

    seed: int
    datasets: tuple[DatasetOrder, ...]
    stretch: int = 1

    @cached_property
    def mixture(self) -> Mixture:
        """The cycle of datasets."""
        return Mixture(tuple(c.weight for c in self.datasets))

    @property
    def period(self) -> int:
        """Positions after which the mixture begins again."""
        return self.mixture.length * self.stretch

    def dataset_at(self, positions: Ints) -> Ints:
        """Dataset at each position of the run."""
        return self.mixture.at(positions // self.stretch % self.mixture.length)[0]

    def locate(self, positions: Ints) -> tuple[Ints, Ints]:
        """Dataset and sample index at each position of the run."""
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
        """Positions of one step that a rank fetches, for each dataset.

        Of a dataset' ``n`` positions rank ``r`` takes those from ``r * n // world`` to ``(r + 1) * n // world``: contiguous
        blocks, sizes differing by at most one, for any world size; together the ranks hold every position once.
        """
        positions = np.arange(first, first + global_batch, dtype=np.int64)
        dataset = self.dataset_at(positions)
        shares = []
        for number in range(len(self.datasets)):
            mine = positions[dataset == number]
            shares.append(mine[rank * len(mine) // world : (rank + 1) * len(mine) // world])
        return shares


def rng_at(seed: int, position: int) -> np.random.Generator:
    """The generator that belongs to a position of a run, whoever asks, whenever."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, position], _U64)))
