"""Samples read from a published dataset on this machine, in one thread, from the page cache.

Limit: ``os.pread`` of the same ranges. Between it and ``read_sample`` stand the parts that cannot be left out (crc32c,
decoding) and those that could be cheaper (the catalog row as Python values).
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np

from benchmarks.stopwatch import in_turns, show
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.pseudo3d import Pseudo3D, unroll
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Encoding
from crossdim.training.data.dataset import _decode, open_dataset, read_sample
from crossdim.training.data.range_reader import open_range_reader
from tests.training.published import images, publish, superpatches

PREAD = "os.pread of the same ranges"


def radiographs(count: int, side: int) -> list[Sample]:
    """Pseudo-3D samples of a square side."""
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 256, (1, side, side), np.uint8) for _ in range(count))
    return [
        replace(sample, array=unroll(image, Pseudo3D()), extra={"image_height": side, "image_width": side})
        for sample, image in zip(images(count), pixels, strict=True)
    ]


def spent(values: Iterable[object]) -> None:
    """Make every value and keep none, as a loader does: memory is used again."""
    deque(values, maxlen=0)


def measure(title: str, samples: list[Sample], folder: Path) -> None:
    """Publish samples and print the table."""
    bucket = Bucket(str(folder))
    publish(bucket, samples, "bench")
    dataset = open_dataset(bucket)
    reader = open_range_reader(bucket)
    rows = dataset.table.to_pylist()
    descriptor = os.open(bucket.full(rows[0]["object"]), os.O_RDONLY)
    stored = [os.pread(descriptor, row["length"], row["offset"]) for row in rows]
    promises = [(Encoding(row["encoding"]), tuple(row["shape"]), np.dtype(row["dtype"])) for row in rows]
    everyone = range(len(rows))
    cases = {
        PREAD: lambda: spent(os.pread(descriptor, row["length"], row["offset"]) for row in rows),
        "crc32c of bytes at hand": lambda: spent(google_crc32c.value(data) for data in stored),
        "decoding of bytes at hand": lambda: spent(_decode(data, *p) for data, p in zip(stored, promises, strict=True)),
        "catalog row to Python values": lambda: spent(dataset.row(i) for i in everyone),
        "read_sample": lambda: spent(read_sample(dataset, i, reader) for i in everyone),
    }
    times = in_turns(cases, runs=9)
    each = sum(map(len, stored)) / len(stored)
    heading = f"{title}: {len(rows)} samples of {each / 1024:.0f} KiB stored; for each sample"
    show(heading, times, limit=PREAD, unit="µs", per_second=1e6 / len(rows), digits=0)
    rate = sorted(len(rows) / s for s in times["read_sample"])
    size = samples[0].array.nbytes / 2**20
    print(f"  read_sample: {rate[len(rate) // 2]:.0f} samples/s ({rate[0]:.0f}-{rate[-1]:.0f}), {size:.2f} MiB decoded each")
    os.close(descriptor)


def main() -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        measure("thumbnails, pseudo-3D in a tar", images(256), Path(folder, "thumbnails"))
        measure("radiographs of 1024, pseudo-3D in a tar", radiographs(32, 1024), Path(folder, "radiographs"))
        measure("superpatches of 64, bank", superpatches(32, 64), Path(folder, "small"))
        measure("superpatches of 128, bank", superpatches(16, 128), Path(folder, "large"))


if __name__ == "__main__":
    main()
