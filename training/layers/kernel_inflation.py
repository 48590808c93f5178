"""3D kernels from 2D ones.

Axes: O output channel, I input channel of a group, Z Y X depth, row and column of a kernel.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from crossdim.storage_schema.errors import GeometryError, describe_unknown_name
from crossdim.training.layers.conv_geometry import Triple

Inflation = Literal["centre", "i3d", "acs"]


def inflate_kernel(weight_OIYX: Tensor, how: Inflation, *, depth: int, across: Tensor | None = None) -> Tensor:
    """A 3D kernel that does to volumes what a 2D kernel does to images, in one of three senses.

    Args:
        weight_OIYX: the 2D kernel.
        how: ``centre`` puts it into the middle slice: each slice of a volume is convolved alone, like an image. ``i3d``
            divides it equally over all slices: on a volume that is constant along depth, it acts as on the slice (Carreira
            and Zisserman, arXiv 1705.07750). ``acs`` puts it into the middle plane across one of the axes
            (:mod:`crossdim.training.layers.acs`).
        depth: taps along depth.
        across: for ``acs``, the axis of every kernel, broadcast to (O, I): 0 depth, 1 rows, 2 columns.

    Returns:
        (O, I, depth, Y, X).

    Raises:
        GeometryError: if ``how`` is unknown, or ``acs`` is given a kernel that is not a cube.
    """
    if how not in get_args(Inflation):
        raise GeometryError(describe_unknown_name("inflation", how, get_args(Inflation)))
    if how == "i3d":
        return (weight_OIYX / depth).unsqueeze(2).repeat(1, 1, depth, 1, 1)
    rows, columns = weight_OIYX.shape[2:]
    if how == "acs" and (across is None or not depth == rows == columns):
        raise GeometryError(f"an ACS kernel is a cube, with an axis for each plane; found {(depth, rows, columns)} and {across}")
    kernel = weight_OIYX.new_zeros(*weight_OIYX.shape[:2], depth, rows, columns)
    for axis in range(3 if across is not None else 1):
        mine = weight_OIYX if across is None else weight_OIYX * (across == axis)[..., None, None]
        kernel.select(2 + axis, kernel.shape[2 + axis] // 2).add_(mine)
    return kernel


def axes_of(split: Triple) -> Tensor:
    """The axis perpendicular to each output channel's plane, (O, 1), for a split of the channels."""
    return torch.repeat_interleave(torch.arange(3), torch.tensor(split))[:, None]
