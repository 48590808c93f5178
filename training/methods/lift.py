"""Lift: how an image becomes a volume for a 3D network. The published one, and controls that tell whether it matters.

Which window, stride and order CDSSL-P3D ablated could not be read; the family and its controls are ours. Depth that is no
multiple of what the backbone pools by is filled up with slices of zeros behind the last one (ours): in a normalised view
zero is the mean, in a target it is black.
"""

# Axes: N images, B batch, C channel, D depth, H height, W width.
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.pseudo3d import ChannelMode, DepthOrder, Layout, Pseudo3D, unroll
from crossdim.storage_schema.sample import Array
from crossdim.training.layers.pseudo3d import unroll_torch


class Lift(ABC):
    """A way to make a volume of a gray image. Subclasses are frozen, keyword-only dataclasses.

    Attributes:
        kind: name in ``LIFTS``.
    """

    kind: ClassVar[str]

    @abstractmethod
    def shape(self, side: int) -> tuple[int, int, int]:
        """(D, H', W') of the volume of a square image, before depth is filled up; GeometryError if it cannot be made."""

    @abstractmethod
    def volumes(self, images_NHW: Array) -> Array:
        """(N, D, H', W'), same dtype."""

    @abstractmethod
    def volumes_torch(self, images_NHW: Tensor) -> Tensor:
        """The same volumes as :meth:`volumes`, on the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrolled(Lift):
    """Every window along depth (im2col), as CDSSL-P3D has it; planned are k of 2, 3, 4, 6, 8 and s of k and k / 2."""

    kind: ClassVar[str] = "unrolled"
    geometry: Pseudo3D = field(default_factory=Pseudo3D)

    def shape(self, side: int) -> tuple[int, int, int]:
        """See :meth:`Lift.shape`."""
        _, depth, height, width = self.geometry.shape(1, side, side)
        return depth, height, width

    def volumes(self, images_NHW: Array) -> Array:
        """See :meth:`Lift.volumes`."""
        return np.stack([unroll(image[None], self.geometry)[0] for image in images_NHW])

    def volumes_torch(self, images_NHW: Tensor) -> Tensor:
        """See :meth:`Lift.volumes_torch`."""
        return unroll_torch(images_NHW[:, None], self.geometry)[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeated(Lift):
    """Control: the image in every slice (inflation). Depth says nothing, voxels are ``depth`` times as many."""

    kind: ClassVar[str] = "repeated"
    depth: int = 16  # the depth of k = 4

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise GeometryError(f"an image is repeated at least once; found depth {self.depth}")

    def shape(self, side: int) -> tuple[int, int, int]:
        """See :meth:`Lift.shape`."""
        return self.depth, side, side

    def volumes(self, images_NHW: Array) -> Array:
        """See :meth:`Lift.volumes`."""
        return np.repeat(images_NHW[:, None], self.depth, axis=1)

    def volumes_torch(self, images_NHW: Tensor) -> Tensor:
        """See :meth:`Lift.volumes_torch`."""
        return images_NHW[:, None].repeat(1, self.depth, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice(Lift):
    """Control: the image as the first slice, with nothing (zeros) behind it."""

    kind: ClassVar[str] = "slice"
    depth: int = 16  # the depth of k = 4

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise GeometryError(f"a slice lies in a depth of at least 1; found {self.depth}")

    def shape(self, side: int) -> tuple[int, int, int]:
        """See :meth:`Lift.shape`."""
        return self.depth, side, side

    def volumes(self, images_NHW: Array) -> Array:
        """See :meth:`Lift.volumes`."""
        return np.pad(images_NHW[:, None], ((0, 0), (0, self.depth - 1), (0, 0), (0, 0)))

    def volumes_torch(self, images_NHW: Tensor) -> Tensor:
        """See :meth:`Lift.volumes_torch`."""
        return functional.pad(images_NHW[:, None], (0, 0, 0, 0, 0, self.depth - 1))


LIFTS: dict[str, type[Lift]] = {lift.kind: lift for lift in (Unrolled, Repeated, Slice)}


@lru_cache(maxsize=64)
def require_fitting(lift: Lift, side: int, multiple: int) -> None:
    """Refuse a view whose volume the backbone cannot pool in the plane.

    Raises:
        GeometryError: naming the next side that fits.
    """
    if fits(lift, side, multiple):
        return
    # Along a side the grid repeats after stride x multiple pixels: if none fits up to there, none does.
    reach = lift.geometry.stride * multiple + lift.geometry.window if isinstance(lift, Unrolled) else multiple
    larger = next((s for s in range(side + 1, side + reach + 1) if fits(lift, s, multiple)), None)
    hint = f"the next side that fits is {larger}" if larger else "no side fits: the plane of this layout is one window"
    raise GeometryError(
        f"a view of side {side} does not become a plane whose sides are multiples of {multiple} by {lift}; {hint}"
    )


def fits(lift: Lift, side: int, multiple: int) -> bool:
    """Whether a square image becomes a volume whose plane has sides of multiples of ``multiple``."""
    try:
        _, height, width = lift.shape(side)
    except GeometryError:
        return False
    return height % multiple == 0 and width % multiple == 0


def lifted(images_NHW: Array, lift: Lift, multiple: int) -> Array:
    """Volumes (N, 1, D, H', W') of images, depth filled up with zeros to a multiple."""
    volumes = lift.volumes(images_NHW)
    missing = -volumes.shape[1] % multiple
    return np.pad(volumes, ((0, 0), (0, missing), (0, 0), (0, 0)))[:, None] if missing else volumes[:, None]


def lifted_torch(images_NHW: Tensor, lift: Lift, multiple: int) -> Tensor:
    """The same volumes as :func:`lifted`, on the device."""
    volumes = lift.volumes_torch(images_NHW)
    missing = -volumes.shape[1] % multiple
    return functional.pad(volumes, (0, 0, 0, 0, 0, missing))[:, None]


_LAYOUTS, _ORDERS, _MODES = get_args(Layout), get_args(DepthOrder), get_args(ChannelMode)


def encoded(spec: Pseudo3D) -> Array:
    """A geometry as seven integers, so that it can travel in a batch."""
    names = _LAYOUTS.index(spec.layout), _ORDERS.index(spec.depth_order), _MODES.index(spec.channel_mode)
    return np.array([spec.window, spec.stride, spec.padding, *names, spec.allow_crop], np.int64)


def decoded(geometry_B7: Tensor) -> Pseudo3D:
    """The geometry of a batch, from :func:`encoded`. Waits for the device.

    Raises:
        GeometryError: if samples of different geometries are in one batch.
    """
    kinds = torch.unique(geometry_B7, dim=0).tolist()
    if len(kinds) != 1:
        raise GeometryError(f"a batch rendered on the device has images of one pseudo-3D geometry; found {kinds}. Choose a lift")
    window, stride, padding, layout, order, mode, crop = kinds[0]
    return Pseudo3D(
        window=window,
        stride=stride,
        padding=padding,
        layout=_LAYOUTS[layout],
        depth_order=_ORDERS[order],
        channel_mode=_MODES[mode],
        allow_crop=bool(crop),
    )
