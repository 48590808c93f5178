"""Unroll and fold of the pseudo-3D view, window = stride = 4.

Limits: one memcpy of the output into memory that is there already, and the same gather as one strided copy by NumPy into
such memory. Unroll and fold return new arrays; a memcpy into a new array shows what that alone costs. Beside them the forms
for networks, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.stopwatch import in_turns, show
from crossdim.storage_schema.pseudo3d import Pseudo3D, fold, unroll
from crossdim.storage_schema.sample import Array
from crossdim.training.layers.pseudo3d import fold_torch, unroll_torch

SPEC = Pseudo3D(window=4, stride=4)
SPEC_WINDOW = Pseudo3D(window=4, stride=4, layout="window")
MEMCPY = "memcpy, memory at hand"


def written(volume: Array, image: Array) -> None:
    """Every depth slice written to its pixels: what fold could be."""
    for depth, (rows, columns) in enumerate(SPEC.slices(*image.shape[1:])):
        image[:, rows, columns] = volume[:, depth]


def measure(side: int, dtype: type[np.generic], repeat: int) -> None:
    """Print the table for a square image."""
    k, grid = SPEC.window, side // SPEC.window
    image = np.random.default_rng(0).integers(0, 256, (1, side, side)).astype(dtype)
    volume, there = unroll(image, SPEC), np.empty_like(image)
    images, volumes = torch.from_numpy(image)[None], torch.from_numpy(volume)[None]
    windows = image.reshape(1, grid, k, grid, k).transpose(0, 2, 4, 1, 3)
    pixels = volume.reshape(1, k, k, grid, grid).transpose(0, 3, 1, 4, 2)
    cases: dict[str, Callable[[], object]] = {
        MEMCPY: lambda: np.copyto(there, image),
        "memcpy, new memory": image.copy,
        "unroll as one strided copy, memory at hand": lambda: np.copyto(there.reshape(windows.shape), windows),
        "unroll": lambda: unroll(image, SPEC),
        "unroll, layout window": lambda: unroll(image, SPEC_WINDOW),
        "unroll in torch": lambda: unroll_torch(images, SPEC),
        "fold as one strided copy, memory at hand": lambda: np.copyto(there.reshape(pixels.shape), pixels),
        "fold as 16 strided writes, memory at hand": lambda: written(volume, there),
        "fold": lambda: fold(volume, SPEC, side, side),
        "fold in torch": lambda: fold_torch(volumes, SPEC, side, side),
    }
    title = f"pseudo-3D of {side} x {side} {np.dtype(dtype).name}, {image.nbytes / 2**20:g} MiB"
    show(title, in_turns(cases, runs=9, repeat=repeat), limit=MEMCPY, digits=3)


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    measure(1024, np.uint8, repeat=20)
    measure(4096, np.uint8, repeat=3)
    measure(1024, np.uint16, repeat=10)
    measure(1024, np.float32, repeat=10)


if __name__ == "__main__":
    main()
