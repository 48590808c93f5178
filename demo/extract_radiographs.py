"""Make ``radiographs.npz`` from the file of MedMNIST v2: ``python -m demo.extract_radiographs pneumoniamnist.npz``.

``RADIOGRAPHS.md`` names its authors and licence.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from demo.radiographs import EXTRACT, LABELS

TRAIN_IMAGES = 700
SEED = 0


def choose(labels_N: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int64]:
    """Indices of ``count`` random samples, with the classes in the proportion of all; sorted."""
    rng = np.random.default_rng(SEED)
    numbers = [round(count * float(np.mean(labels_N == label))) for label in range(len(LABELS))]
    drawn = [rng.permutation(np.flatnonzero(labels_N == label))[:number] for label, number in enumerate(numbers)]
    return np.sort(np.concatenate(drawn))


def write_extract(source: Path, target: Path = EXTRACT) -> None:
    """Write 700 images of the training split, and the whole test split.

    Args:
        source: the file of MedMNIST v2.
        target: where the extract goes.
    """
    with np.load(source, allow_pickle=False) as whole:
        chosen = choose(whole["train_labels"][:, 0], TRAIN_IMAGES)
        train = {f"train_{part}": whole[f"train_{part}"][chosen] for part in ("images", "labels")}
        test = {f"test_{part}": whole[f"test_{part}"] for part in ("images", "labels")}
    np.savez_compressed(target, **train, **test)


if __name__ == "__main__":
    write_extract(Path(sys.argv[1]))
