"""Bring volumes into one orientation: index order (d, h, w) goes towards superior, anterior, right. No voxel is changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.sample import Sample

#: World axis (RAS: 0 right, 1 anterior, 2 superior) that each array axis follows.
_WORLD_OF_AXIS = (2, 1, 0)


def find_nearest_axes(affine: npt.NDArray[np.float64]) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """For each of (d, h, w): the array axis nearest to superior, anterior, right, and whether it points the opposite way.

    Source: the rotation nearest to the voxel axes is their polar factor, as in nibabel's ``io_orientation``.
    """
    left, _, right = np.linalg.svd(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))
    rotation = left @ right
    order = max(
        permutations(range(3)), key=lambda axes: sum(abs(rotation[w, a]) for w, a in zip(_WORLD_OF_AXIS, axes, strict=True))
    )
    d, h, w = (bool(rotation[world, axis] < 0) for world, axis in zip(_WORLD_OF_AXIS, order, strict=True))
    return (order[0], order[1], order[2]), (d, h, w)


def orient(sample: Sample) -> Sample:
    """Exchange and flip the axes of a volume so that it is nearest to RAS+, and its affine with them.

    Args:
        sample: (C, D, H, W) with spacing and affine.

    Returns:
        The same voxels at the same places in the world.
    """
    if sample.affine is None or sample.spacing_mm is None:
        raise GeometryError(f"sample {sample.key}: a volume without affine cannot be oriented")
    affine = np.array(sample.affine)
    order, against = find_nearest_axes(affine)
    array = sample.array.transpose(0, *(axis + 1 for axis in order))
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = affine[:3, list(order)], affine[:3, 3]
    for axis, flip in enumerate(against):
        if flip:
            turned[:3, 3] += turned[:3, axis] * (array.shape[axis + 1] - 1)
            turned[:3, axis] *= -1
    flips = tuple(slice(None, None, -1 if flip else 1) for flip in against)
    outside = None if sample.outside is None else np.ascontiguousarray(sample.outside.transpose(order)[flips])
    return replace(
        sample,
        array=np.ascontiguousarray(array[(slice(None), *flips)]),
        outside=outside,
        affine=tuple(tuple(float(v) for v in row) for row in turned),
        spacing_mm=tuple(sample.spacing_mm[axis] for axis in order),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OrientStage(Stage):
    """:func:`orient`, which has no settings."""

    name: ClassVar[str] = "orient"

    def __call__(self, sample: Sample) -> Sample:
        """The volume, oriented."""
        return orient(sample)

    def preprocessing(self) -> dict[str, object]:
        """The orientation that all volumes get."""
        return {self.name: "RAS"}
