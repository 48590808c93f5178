"""The published preparation of PCRLv2's crop pairs, transcribed from its description and written apart from our code.

Source: RL4M/PCRLv2, luna_preprocess.py lines 118-274, as specified (margins, sizes, bound, rejection rule, windows). It is laid
out as that code is: whole pairs drawn until one fits, one Python loop over all voxels that scores tissue. It is slow on purpose
and shares no line with ``training``. Volumes are (x, y, z), unit range for -1000 .. 1000 HU, 1 mm.

Not in the description, and so inferred: tissue is what exceeds -150 HU; the score of a voxel is 1 if its own slice shows tissue
there, and 1/2 or 0 less the farther the slice; slices beyond the last are the last; resizing is scikit-image's, with its
antialiasing. Its faults are kept: the score of the resized crop is held against the volume of the crop before, the second crop
against the size of the first, and windows that leave the volume are stretched.
"""

from __future__ import annotations

import random

import numpy as np
from skimage.transform import resize

SIZES = [(96, 96, 64), (96, 96, 96), (112, 112, 64), (64, 64, 32)]
WINDOWS = [(32, 32, 16), (16, 16, 16), (32, 32, 32), (8, 8, 8)]
MARGIN = (70, 70, 15)
CROP, WINDOW = (64, 64, 32), (16, 16, 16)
TISSUE = (-150 + 1000) / 2000
SLICES = 3
REJECT_ABOVE = 0.15

Corner = tuple[int, int, int]


def iou(a: Corner, size_a: Corner, b: Corner, size_b: Corner) -> float:
    """Intersection over union, axis by axis."""
    inner = 1
    for axis in range(3):
        first = max(a[axis], b[axis])
        last = min(a[axis] + size_a[axis], b[axis] + size_b[axis])
        if last <= first:
            return 0.0
        inner *= last - first
    return inner / (size_a[0] * size_a[1] * size_a[2] + size_b[0] * size_b[1] * size_b[2] - inner)


def origin(shape: Corner, size: Corner, rng: random.Random) -> Corner:
    """A first voxel that keeps the margin on both sides."""
    x, y, z = (rng.randint(MARGIN[axis], shape[axis] - size[axis] - MARGIN[axis]) for axis in range(3))
    return x, y, z


def overlapping(shape: Corner, rng: random.Random) -> tuple[Corner, Corner, Corner, Corner]:
    """Two boxes, drawn until their intersection over union exceeds 0.3: corner, size, corner, size."""
    while True:
        size_a, size_b = rng.choice(SIZES), rng.choice(SIZES)
        a, b = origin(shape, size_a, rng), origin(shape, size_b, rng)
        if iou(a, size_a, b, size_b) > 0.3:
            return a, size_a, b, size_b


def cut(volume: np.ndarray, corner: Corner, size: Corner, side: Corner) -> np.ndarray:
    """A box, brought to one size."""
    x, y, z = corner
    box = volume[x : x + size[0], y : y + size[1], z : z + size[2]]
    return np.asarray(resize(box, side, preserve_range=True), np.float32)


def tissue_score(crop: np.ndarray) -> float:
    """Sum over all voxels of how near the next slice with tissue is."""
    score = np.zeros(crop.shape, np.float32)
    for i in range(crop.shape[0]):
        for j in range(crop.shape[1]):
            for k in range(crop.shape[2]):
                for d in range(SLICES):
                    if crop[i, j, min(k + d, crop.shape[2] - 1)] >= TISSUE:
                        score[i, j, k] = 1 - d / (SLICES - 1)
                        break
    return float(score.sum())


def draw_windows(
    shape: Corner, a: Corner, size_a: Corner, b: Corner, size_b: Corner, rng: random.Random
) -> list[tuple[Corner, Corner]]:
    """Corners and sizes of six windows; the corners lie in the hull of both boxes, enlarged by 3 voxels."""
    found = []
    for _ in range(6):
        size = rng.choice(WINDOWS)
        corner = []
        for axis in range(3):
            low = max(0, min(a[axis], b[axis]) - 3)
            high = min(shape[axis] - size[axis], max(a[axis] + size_a[axis], b[axis] + size_b[axis]) + 3)
            corner.append(rng.randint(low, max(low, high)))
        found.append(((corner[0], corner[1], corner[2]), size))
    return found


def rejected(first: np.ndarray, second: np.ndarray, size: Corner) -> bool:
    """Whether either crop shows too much tissue for the size of the first one."""
    bound = REJECT_ABOVE * size[0] * size[1] * size[2]
    return tissue_score(first) > bound or tissue_score(second) > bound


def crop_pair(volume: np.ndarray, rng: random.Random, *, scored: bool = True) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Two global crops and six local ones; pairs with too much tissue are drawn again, unless they are not scored."""
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    while True:
        a, size_a, b, size_b = overlapping(shape, rng)
        first, second = cut(volume, a, size_a, CROP), cut(volume, b, size_b, CROP)
        if scored and rejected(first, second, size_a):
            continue
        windows = draw_windows(shape, a, size_a, b, size_b, rng)
        return first, second, [cut(volume, corner, size, WINDOW) for corner, size in windows]
