"""Boxes that the views of a volume are cut from: two global ones that overlap, and local ones near them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.errors import GeometryError

Reals = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
#: Where the corners of local boxes may lie: ``published`` as in PCRLv2; ``hull`` keeps whole boxes in the hull (ours).
LocalBox = Literal["published", "hull"]
Side3 = tuple[int, int, int]
#: Proposals that are drawn together, and the number of such rounds after which a pair is considered impossible.
PROPOSALS, ROUNDS = 64, 200
HULL_MARGIN = 3  # code: PCRLv2, luna_preprocess.py lines 251-274


@dataclass(frozen=True, kw_only=True, slots=True)
class Boxes:
    """V boxes of a volume: first voxel and size along (D, H, W), whole voxels.

    Attributes:
        start: (V, 3) voxels.
        size: (V, 3) voxels.
    """

    start: Integers
    size: Integers


def overlap(start_a: Integers, size_a: Integers, start_b: Integers, size_b: Integers) -> Reals:
    """Intersection over union of boxes.

    Args:
        start_a: (..., 3) first voxels.
        size_a: (..., 3) voxels.
        start_b: as ``start_a``.
        size_b: as ``size_a``.

    Returns:
        (...), in [0, 1].
    """
    shared = np.minimum(start_a + size_a, start_b + size_b) - np.maximum(start_a, start_b)
    inner = np.maximum(shared, 0).prod(-1)
    return np.asarray(inner / (size_a.prod(-1) + size_b.prod(-1) - inner))


def _sizes_that_fit(sizes: Sequence[Side3], extent_DHW: Integers) -> Integers:
    return np.array([size for size in sizes if (np.asarray(size) <= extent_DHW).all()], np.int64).reshape(-1, 3)


def draw_box_pair(shape_DHW: Side3, sizes: Sequence[Side3], rng: np.random.Generator, min_overlap: float = 0.3) -> Boxes:
    """Draw two boxes inside a volume whose intersection over union is above ``min_overlap``.

    Sizes and places are uniform among all pairs that satisfy the bound. Drawing pairs until one does would take thousands
    of draws in a large volume; so the second box is drawn only from the places where every single axis still allows the
    bound, and accepted with a probability in proportion to their number. The result has the same distribution.

    Args:
        shape_DHW: of the volume, voxels.
        sizes: possible sizes (D, H, W) of a box, voxels; those that do not fit into the volume are left out.
        rng: source of the draws.
        min_overlap: bound of the intersection over union.

    Returns:
        Two boxes, V = 2.

    Raises:
        GeometryError: if no size fits into the volume, or no two boxes can overlap by as much.
    """
    shape = np.asarray(shape_DHW)
    fitting = _sizes_that_fit(sizes, shape)
    if len(fitting):
        every_a, every_b = np.repeat(fitting, len(fitting), axis=0), np.tile(fitting, (len(fitting), 1))
        longest = every_a + every_b - 2 * _least_lengths(every_a, every_b, min_overlap)
        widest = float(_share(np.floor(longest) + 1, shape - every_b + 1).max())
    for _ in range(ROUNDS if len(fitting) else 0):
        size_a, size_b = (fitting[rng.integers(len(fitting), size=PROPOSALS)] for _ in range(2))
        start_a = rng.integers(0, shape - size_a + 1)
        needed = _least_lengths(size_a, size_b, min_overlap)
        low = np.maximum(0, np.ceil(start_a + needed - size_b)).astype(np.int64)
        high = np.minimum(shape - size_b, np.floor(start_a + size_a - needed)).astype(np.int64)
        start_b = rng.integers(low, np.maximum(low, high) + 1)
        kept = (high >= low).all(-1) & (overlap(start_a, size_a, start_b, size_b) > min_overlap)
        kept &= rng.uniform(0, widest, PROPOSALS) < _share(high - low + 1, shape - size_b + 1)
        if kept.any():
            first = int(kept.argmax())
            return Boxes(start=np.stack([start_a[first], start_b[first]]), size=np.stack([size_a[first], size_b[first]]))
    raise GeometryError(f"no two boxes of sizes {list(sizes)} overlap by {min_overlap} inside a volume of {shape_DHW}")


def _least_lengths(size_a: Integers, size_b: Integers, min_overlap: float) -> Reals:
    """The smallest length that two boxes must share along each axis, if they shared as much as possible along the other two."""
    inner = min_overlap * (size_a.prod(-1) + size_b.prod(-1)) / (1 + min_overlap)
    most = np.minimum(size_a, size_b)
    return np.asarray(inner[..., None] * most / most.prod(-1)[..., None])


def _share(places: npt.NDArray[np.generic], every: Integers) -> Reals:
    """Fraction of all places of a box that the places along each axis, (..., 3), allow."""
    return np.asarray((np.clip(places, 0, every) / every).prod(-1))


def draw_local_boxes(
    pair: Boxes, shape_DHW: Side3, sizes: Sequence[Side3], count: int, rng: np.random.Generator, *, corners: LocalBox
) -> Boxes:
    """Draw boxes near a pair: in the hull of the two, enlarged by 3 voxels.

    Args:
        pair: the global boxes.
        shape_DHW: of the volume, voxels; no box leaves it.
        sizes: possible sizes (D, H, W) of a box, voxels; those that do not fit are left out.
        count: how many boxes.
        rng: source of the draws.
        corners: ``published``: first corners lie in the hull, and boxes may reach beyond it, as in PCRLv2 (code); ``hull``: boxes
            lie in it whole.

    Returns:
        ``count`` boxes.

    Raises:
        GeometryError: if no size fits.
    """
    low = np.maximum(0, pair.start.min(0) - HULL_MARGIN)
    high = np.minimum(shape_DHW, (pair.start + pair.size).max(0) + HULL_MARGIN)
    extent_DHW = np.asarray(shape_DHW) if corners == "published" else high - low
    fitting = _sizes_that_fit(sizes, extent_DHW)
    if not len(fitting):
        raise GeometryError(f"no local box of sizes {list(sizes)} fits into {extent_DHW} voxels, where local boxes may lie")
    size = fitting[rng.integers(len(fitting), size=count)]
    if corners == "published":
        last = np.minimum(high, shape_DHW - size)
        return Boxes(start=rng.integers(np.minimum(low, last), last + 1), size=size)
    return Boxes(start=rng.integers(low, high - size + 1), size=size)
