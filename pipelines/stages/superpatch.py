"""Cut volumes into superpatches, and keep those that are not mostly air."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.bank import AIR
from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array, Sample
from crossdim.storage_schema.superpatch import FOREGROUND_OF, Index, SuperpatchGrid, compute_foreground, cut
from crossdim.storage_schema.vocabulary import Presentation


def count_boxes(shape_DHW: Index, grid: SuperpatchGrid) -> int:
    """Count the boxes that a volume is cut into: the positions that the plan reserves.

    Args:
        shape_DHW: of the volume, voxels.
        grid: of the boxes.

    Returns:
        Number of boxes, kept or not.

    Raises:
        SampleError: rule ``thin`` for a volume that is shorter than a box, where ``edge`` or ``thin`` of the grid is ``drop``.
    """
    short = [f"{size} along {axis}" for axis, size in zip("zyx", shape_DHW, strict=True) if size < grid.side]
    if short and "drop" in (grid.edge, grid.thin):
        asked = "thin" if grid.edge == "pad" else "edge"
        raise SampleError(
            "thin",
            f"the volume has {', '.join(short)} voxels, a box {grid.side}; superpatch.{asked}=pad would fill it up with air",
        )
    return math.prod(grid.counts(shape_DHW))


def cut_boxes(sample: Sample, grid: SuperpatchGrid) -> list[Sample]:
    """Cut a stored volume into boxes in raster order, without those that are mostly air.

    A box without any foreground voxel is left out whatever the rule says: it has no bytes in the bank.

    Args:
        sample: (1, D, H, W) as stored, air at 0.
        grid: edge, rest and foreground rule.

    Returns:
        Samples (1, S, S, S); ``origin.part`` is ``box=NN`` with the raster index of the box.

    Raises:
        SampleError: rule ``thin``, see :func:`count_boxes`; rule ``no_foreground`` if no box is left.
    """
    depth, height, width = sample.array.shape[1:]
    shape_DHW = (depth, height, width)
    count_boxes(shape_DHW, grid)
    starts, num_voxels = grid.starts(shape_DHW), grid.count_fillable(shape_DHW)
    kept, fullest = [], 0.0
    for number, start in enumerate(starts):
        box = cut(sample.array, start, grid.side, AIR)
        share = compute_foreground(sample.scaling.unit(box), grid.foreground_above, num_voxels)
        fullest = max(fullest, share)
        if share >= grid.min_foreground and box.any():
            kept.append(_build_sample(sample, number, start, box, share))
    if not kept:
        least = max(1, math.ceil(grid.min_foreground * num_voxels))
        remedy = " A volume that is that empty, as a mask is, is kept with --set superpatch.min_foreground=0" if fullest else ""
        raise SampleError(
            "no_foreground",
            f"the volume of {shape_DHW} voxels has no box of {grid.side} (of {len(starts)}) in which at least {least:,} "
            f"(superpatch.min_foreground={grid.min_foreground:g}) are above {grid.foreground_above:.0%} of the intensity window; "
            f"the fullest has {round(fullest * num_voxels):,}. Is the window {sample.scaling.low:g}..{sample.scaling.high:g} "
            f"right?{remedy}",
        )
    return kept


def _move_affine(
    affine: tuple[tuple[float, ...], ...] | None, start: tuple[int, int, int]
) -> tuple[tuple[float, ...], ...] | None:
    """The affine of a box: that of its volume, moved to the box's first voxel."""
    if affine is None:
        return None
    return tuple((*row[:3], row[3] + sum(a * s for a, s in zip(row[:3], start, strict=True))) for row in affine[:3]) + affine[3:]


def _build_sample(volume: Sample, number: int, start: tuple[int, int, int], box: Array, share: float) -> Sample:
    part = f"box={number:02d}"
    return replace(
        volume,
        key=sample_key(volume.origin.sha256, part),
        presentation=Presentation.SUPERPATCH,
        array=box,
        origin=replace(volume.origin, part=part),
        origin_zyx=start,
        affine=_move_affine(volume.affine, start),
        foreground=share,
        extra={**volume.extra, "volume_shape": list(volume.array.shape[1:])},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperpatchStage(Stage):
    """:func:`cut_boxes` with its settings."""

    name: ClassVar[str] = "superpatch"

    grid: SuperpatchGrid

    def __call__(self, sample: Sample) -> list[Sample]:
        """The boxes of the volume."""
        return cut_boxes(sample, self.grid)

    def preprocessing(self) -> dict[str, object]:
        """The grid, and which boxes are kept."""
        return {self.name: asdict(self.grid), "foreground_of": FOREGROUND_OF}
