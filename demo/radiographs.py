"""Chest radiographs of children, an extract of PneumoniaMNIST that this folder carries: see ``RADIOGRAPHS.md``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from demo.phantoms import png_bytes

EXTRACT = Path(__file__).with_name("radiographs.npz")
LABELS = ("normal", "pneumonia")
SPLITS = ("train", "test")


def write_radiographs(root: Path, *, most: int | None = None) -> int:
    """Write the radiographs in folders by split and label: ``<root>/train/pneumonia/0123.png``.

    Args:
        root: folder; made if there is none.
        most: radiographs of each split; None for all.

    Returns:
        How many files were written.
    """
    count = 0
    with np.load(EXTRACT, allow_pickle=False) as extract:
        for split in SPLITS:
            images, labels = extract[f"{split}_images"][:most], extract[f"{split}_labels"][:most, 0]
            for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
                path = root / split / LABELS[label] / f"{number:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(png_bytes(pixels))
            count += len(images)
    return count
