"""How an image becomes a volume for a 3D network: the published way, and controls that show whether it matters.

Which window, stride and order CDSSL-P3D compared was not available to us; these ways and controls are ours. If the depth is
not a multiple of the backbone's reduction, slices of zeros are added behind the last one (ours): in a normalised view zero
is the mean, in a target it is black.
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


class ImageToVolume(ABC):
    """A way to make a volume from a gray image. Subclasses are frozen, keyword-only dataclasses.

    Attributes:
        kind: name in ``IMAGE_TO_VOLUME``.
        extension: the module that registered it; None if it is one of crossdim's own.
    """

    kind: ClassVar[str]
    extension: ClassVar[str | None] = None

    @abstractmethod
    def shape(self, side: int) -> tuple[int, int, int]:
        """(D, H', W') of the volume of a square image, before slices are added; GeometryError if it cannot be made."""

    @abstractmethod
    def volumes(self, images_NHW: Array) -> Array:
        """(N, D, H', W'), same dtype, from images (N, H, W)."""

    @abstractmethod
    def volumes_torch(self, images_NHW: Tensor) -> Tensor:
        """The same volumes as :meth:`volumes`, on the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrolled(ImageToVolume):
    """The pixels of every window along depth (im2col), as in CDSSL-P3D; k of 2, 3, 4, 6, 8 and s of k and k / 2 are compared.

    Attributes:
        geometry: windows and the order of their pixels.
    """

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
class Repeated(ImageToVolume):
    """Control: the image in every slice (inflation). Depth carries no information; there are ``depth`` times as many voxels.

    Attributes:
        depth (slices): number of equal slices.
    """

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
class Slice(ImageToVolume):
    """Control: the image as the first slice, with zeros behind it.

    Attributes:
        depth (slices): number of slices, of which the first holds the image.
    """

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


IMAGE_TO_VOLUME: dict[str, type[ImageToVolume]] = {lift.kind: lift for lift in (Unrolled, Repeated, Slice)}


@lru_cache(maxsize=64)
def check_fits(lift: ImageToVolume, side: int, multiple: int) -> None:
    """Refuse a view whose volume the backbone cannot pool in the plane.

    Args:
        lift: how the image becomes a volume.
        side: of the square image, pixels.
        multiple: of which the sides of the plane must be multiples.

    Raises:
        GeometryError: naming the next side that fits.
    """
    if fits(lift, side, multiple):
        return
    # Along a side the grid repeats after stride x multiple pixels: if no side up to there fits, none does.
    reach = lift.geometry.stride * multiple + lift.geometry.window if isinstance(lift, Unrolled) else multiple
    larger = next((s for s in range(side + 1, side + reach + 1) if fits(lift, s, multiple)), None)
    hint = f"the next side that fits is {larger}" if larger else "no side fits: the plane of this layout is one window"
    raise GeometryError(
        f"a view of side {side} does not become a plane whose sides are multiples of {multiple} by {lift}; {hint}"
    )


def fits(lift: ImageToVolume, side: int, multiple: int) -> bool:
    """Whether a square image becomes a volume whose height and width are multiples of a number.

    Args:
        lift: how the image becomes a volume.
        side: of the image, pixels.
        multiple: the number.

    Returns:
        False also if the image does not tile.
    """
    try:
        _, height, width = lift.shape(side)
    except GeometryError:
        return False
    return height % multiple == 0 and width % multiple == 0


def to_volumes(images_NHW: Array, lift: ImageToVolume, multiple: int) -> Array:
    """Convert images to volumes, with slices of zeros added until the depth is a multiple of a number.

    Args:
        images_NHW: gray images.
        lift: how an image becomes a volume.
        multiple: the number.

    Returns:
        (N, 1, D, H', W'), same dtype.
    """
    volumes = lift.volumes(images_NHW)
    missing = -volumes.shape[1] % multiple
    return np.pad(volumes, ((0, 0), (0, missing), (0, 0), (0, 0)))[:, None] if missing else volumes[:, None]


def to_volumes_torch(images_NHW: Tensor, lift: ImageToVolume, multiple: int) -> Tensor:
    """:func:`to_volumes` on the device.

    Args:
        images_NHW: gray images.
        lift: how an image becomes a volume.
        multiple: of which the depth is made a multiple.

    Returns:
        (N, 1, D, H', W'), same dtype.
    """
    volumes = lift.volumes_torch(images_NHW)
    missing = -volumes.shape[1] % multiple
    return functional.pad(volumes, (0, 0, 0, 0, 0, missing))[:, None]


_LAYOUTS, _ORDERS, _MODES = get_args(Layout), get_args(DepthOrder), get_args(ChannelMode)


def encode_geometry(spec: Pseudo3D) -> Array:
    """A geometry as seven integers, so that it can be part of a batch."""
    names = _LAYOUTS.index(spec.layout), _ORDERS.index(spec.depth_order), _MODES.index(spec.channel_mode)
    return np.array([spec.window, spec.stride, spec.padding, *names, spec.allow_crop], np.int64)


def decode_geometry(geometry_B7: Tensor) -> Pseudo3D:
    """The geometry of a batch, the inverse of :func:`encode_geometry`. Waits for the device.

    Raises:
        GeometryError: if the batch has samples of different geometries.
    """
    kinds = torch.unique(geometry_B7, dim=0).tolist()
    if len(kinds) != 1:
        raise GeometryError(
            f"a batch rendered on the device has images of one pseudo-3D geometry; found {kinds}. Set method.lift"
        )
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
