"""Planes of volumes as pictures: as radiologists hang them, with the boxes of the superpatch grid."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from crossdim.foundation.page.pictures import Floats, Picture, encode_png
from crossdim.storage_schema.superpatch import Index, SuperpatchGrid

#: Grey of the lines between boxes, and the tint of boxes that were left out, as RGB.
GRID_RGB = np.array([0.25, 0.45, 0.6], np.float32)
DROPPED_RGB = np.array([0.55, 0.25, 0.0], np.float32)
PLANES = ("axial", "coronal", "sagittal")


def cut_plane(volume_DHW: Floats, axis: int, index: int) -> Floats:
    """Cut a plane out of a volume whose axes point to superior, anterior and right, and turn it as it is usually shown.

    Args:
        volume_DHW: any range.
        axis: 0 for an axial, 1 for a coronal, 2 for a sagittal plane.
        index: of the plane along the axis.

    Returns:
        (H, W): head or front at the top, the patient's right (sagittal: front) on the left.
    """
    return np.asarray(np.take(volume_DHW, index, axis=axis)[::-1, ::-1])


def draw_three_planes(volume_DHW: Floats) -> list[Picture]:
    """The middle axial, coronal and sagittal plane of a unit-range volume."""
    return [
        Picture(caption=name, uri=encode_png(cut_plane(volume_DHW, axis, volume_DHW.shape[axis] // 2)))
        for axis, name in enumerate(PLANES)
    ]


def find_boxes_of_plane(grid: SuperpatchGrid, shape_DHW: Index, axis: int) -> list[Index]:
    """Find the boxes that the middle plane of a volume runs through.

    Args:
        grid: of the boxes.
        shape_DHW: of the volume, voxels.
        axis: that the plane is perpendicular to.

    Returns:
        First voxel of each box, kept or not.
    """
    middle = shape_DHW[axis] // 2
    return [start for start in grid.starts(shape_DHW) if start[axis] <= middle < start[axis] + grid.side]


def draw_grid_plane(boxes: Mapping[Index, Floats], grid: SuperpatchGrid, shape_DHW: Index, axis: int) -> Picture:
    """Draw the middle plane of a volume from its superpatches, with the grid; boxes that were left out are tinted.

    Args:
        boxes: unit-range cubes (S, S, S) that were kept, by their first voxel.
        grid: of the boxes.
        shape_DHW: of the volume, voxels.
        axis: that the plane is perpendicular to.

    Returns:
        The picture, in colour.
    """
    others = [other for other in range(3) if other != axis]
    crossed = find_boxes_of_plane(grid, shape_DHW, axis)
    plane = np.zeros((*(shape_DHW[other] for other in others), 3), np.float32)
    for start in crossed:
        rows, columns = (slice(start[other], min(start[other] + grid.side, shape_DHW[other])) for other in others)
        part = plane[rows, columns]
        if (box := boxes.get(start)) is None:
            part[:] = DROPPED_RGB
        else:
            cut = np.take(box, shape_DHW[axis] // 2 - start[axis], axis=axis)
            part[:] = np.clip(cut[: part.shape[0], : part.shape[1], None], 0, 1)
        part[0, :] = part[:, 0] = GRID_RGB
    kept = sum(start in boxes for start in crossed)
    return Picture(
        caption=f"{PLANES[axis]}: {kept} of {len(crossed)} boxes kept", uri=encode_png(np.ascontiguousarray(plane[::-1, ::-1]))
    )
