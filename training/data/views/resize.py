"""Resizes boxes of a volume, with antialiasing where they shrink: a product with one matrix along each axis."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from crossdim.storage_schema.sample import Array
from crossdim.training.data.views.boxes import Side3
from crossdim.training.data.views.source import Floats

#: Deviations of the antialiasing Gaussian at which it is cut off: scikit-image's.
TRUNCATE = 4.0


@lru_cache(maxsize=256)
def build_resize_matrix(length: int, side: int) -> Floats:
    """The matrix that resizes an axis, antialiased where it shrinks.

    A Gaussian with a deviation of (length / side - 1) / 2 voxels, if that is positive, then linear interpolation at the centres
    of the new voxels; voxels beyond an end are mirrored about the outermost one (d c b | a b c d | c b a). That is
    ``skimage.transform.resize`` of order 1, with which PCRLv2 resizes crops.

    Args:
        length: of the axis, voxels.
        side: of the result, voxels.

    Returns:
        (side, length), read-only; rows sum to 1.
    """
    step = length / side
    centre = (np.arange(side) + 0.5) * step - 0.5
    below = np.floor(centre)
    sigma = max(0.0, (step - 1) / 2)
    reach = int(TRUNCATE * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (sigma or 1.0)) ** 2)
    matrix = np.zeros((side, length))
    rows = np.arange(side)
    for tap, weight in zip(range(-reach, reach + 1), taps / taps.sum(), strict=True):
        for neighbour, share in ((below, 1 - (centre - below)), (below + 1, centre - below)):
            np.add.at(matrix, (rows, _mirror(neighbour.astype(int), length, tap)), weight * share)
    narrow = matrix.astype(np.float32)
    narrow.flags.writeable = False
    return narrow


def _mirror(voxels: Array, length: int, tap: int) -> Array:
    """The voxels ``tap`` away from others, all of them mirrored into the axis."""
    if length == 1:
        return np.zeros_like(voxels)
    period = 2 * (length - 1)

    def inside(places: Array) -> Array:
        places = np.abs(places) % period
        return np.asarray(np.minimum(places, period - places))

    # The neighbour of a new voxel is mirrored first, and then its own neighbours are: the two filters follow each other.
    return inside(inside(voxels) + tap)


def resize_box(volume_DHW: Floats, start: Side3 | Array, size: Side3 | Array, side: Side3) -> Floats:
    """Resize a box of a volume to ``side`` voxels, see :func:`build_resize_matrix`.

    Args:
        volume_DHW: any range.
        start: first voxel (D, H, W).
        size: voxels (D, H, W); the box lies in the volume.
        side: of the result, voxels (D, H, W).

    Returns:
        ``side`` voxels (D, H, W), float32.
    """
    box = volume_DHW[tuple(slice(int(first), int(first) + int(count)) for first, count in zip(start, size, strict=True))]
    over_d, over_h, over_w = (build_resize_matrix(int(count), to) for count, to in zip(size, side, strict=True))
    flat = over_d @ np.ascontiguousarray(box).reshape(len(box), -1)
    return np.asarray(over_h @ flat.reshape(side[0], *box.shape[1:]) @ over_w.T)


def sides(volume_DHW: Floats) -> Side3:
    """Depth, height and width of a volume."""
    return volume_DHW.shape[0], volume_DHW.shape[1], volume_DHW.shape[2]
