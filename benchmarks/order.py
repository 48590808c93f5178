"""What it costs to say which samples stand in a batch. Limit: the hash rounds of the permutations, on values at hand.

A shuffled table in memory is what others keep; it is timed where it fits: 8 bytes a sample.
"""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.stopwatch import in_turns, show
from crossdim.training.data.order import _ROUNDS, DatasetOrder, Ints, Order, _mix, rng_at

BATCH = 256
SIZES = (10**6, 10**9, 10**12)
GRANULES = (1, 32)
HASHES = "hash rounds of one permutation"
TABLE_SAMPLES = 10**6


def peak_bytes(order: Order, positions: Ints) -> int:
    """Most memory that one batch takes, which must not depend on the dataset."""
    tracemalloc.start()
    order.locate(positions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def main() -> None:
    """Print time and memory."""
    values = np.arange(BATCH, dtype=np.uint64)
    table = np.random.default_rng(0).permutation(TABLE_SAMPLES)
    places = np.arange(BATCH) + TABLE_SAMPLES // 3

    def hashes() -> None:
        with np.errstate(over="ignore"):
            for _ in range(_ROUNDS):
                _mix(_mix(values))

    cases: dict[str, Callable[[], object]] = {HASHES: hashes, f"shuffled table of {TABLE_SAMPLES:.0e}": lambda: table[places]}
    memory = {}
    for size, granule in itertools.product(SIZES, GRANULES):
        order = Order(7, (DatasetOrder(num_samples=size, granule=granule),))
        positions = np.arange(BATCH, dtype=np.int64) + size // 3
        name = f"locate, N = {size:.0e}, granule {granule}"
        memory[name] = peak_bytes(order, positions)
        cases[name] = partial(order.locate, positions)
    cases["rng_at, for every sample"] = lambda: [rng_at(7, position) for position in range(BATCH)]
    times = in_turns(cases, runs=9, repeat=50)
    show(f"order, batches of {BATCH}, for each sample", times, limit=HASHES, unit="µs", per_second=1e6 / BATCH, digits=3)
    print("\nmemory of one batch, KiB (not growing with N)")
    for name, peak in memory.items():
        print(f"  {name:<44} {peak / 1024:>8.1f}")


if __name__ == "__main__":
    main()
