"""The pseudo-3D view of an image: the pixels of every sliding window moved to the depth axis (im2col), and back.

Source: Gao et al., CDSSL-P3D (arXiv 2406.00947), abstract and figure 2b. The parts of the paper that could be read state the
idea but neither kernel, stride, order nor channels: those defaults are ours (k = s = 4 makes the view a permutation of pixels).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np

from crossdim.storage_schema.errors import GeometryError, describe_unknown_name
from crossdim.storage_schema.sample import Array

Layout = Literal["offset", "window"]
DepthOrder = Literal["row_major", "serpentine"]
ChannelMode = Literal["gray", "keep", "depth"]

#: ITU-R BT.601 luma, as Pillow's "L" mode uses it.
LUMA_RGB = (0.299, 0.587, 0.114)

#: Sizes of the unsigned integers that a processor handles as one.
WORD_BYTES = (2, 4, 8)


def find_recorded_settings(preprocessing: Mapping[str, object]) -> dict[str, object] | None:
    """The settings of the pseudo-3D view as a manifest records them, of any type; None if it records no view."""
    recorded = preprocessing.get("pseudo3d")
    if not isinstance(recorded, dict):
        return None
    return {one.name: recorded[one.name] for one in fields(Pseudo3D) if one.name in recorded}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pseudo3D:
    """Geometry of the view.

    With layout ``offset`` voxel (c, d(i, j), y, x) is pixel (c, y * stride + i, x * stride + j) of the zero-padded image;
    d(i, j) is ``i * window + j`` in row-major order, and serpentine order reverses every odd row so that neighbouring
    slices always differ by one pixel. Layout ``window`` holds the same voxels with the axes exchanged: every window is a
    slice. Channel modes: ``gray`` needs one channel, ``keep`` keeps the channels apart, ``depth`` stacks them along depth.

    Attributes:
        window (pixels): side of a window; its pixels become window² slices.
        stride (pixels): distance between windows.
        padding (pixels): zeros on each side of the image.
        layout: ``offset``: a slice holds one pixel of every window; ``window``: a slice is a window.
        depth_order: order of a window's pixels along depth: row by row, or every odd row reversed.
        channel_mode: ``gray`` needs one channel, ``keep`` keeps the channels apart, ``depth`` stacks them along depth.
        allow_crop: drop rows and columns that no window covers, instead of refusing the image; prepare has cropped it before.
    """

    window: int = 4
    stride: int = 4
    padding: int = 0
    layout: Layout = "offset"
    depth_order: DepthOrder = "row_major"
    channel_mode: ChannelMode = "gray"
    allow_crop: bool = False

    def __post_init__(self) -> None:
        if self.window < 1 or self.stride < 1 or self.padding < 0 or self.padding >= self.window:
            raise GeometryError(f"pseudo-3D needs window >= 1, stride >= 1 and 0 <= padding < window; found {asdict(self)}")
        for name, found, known in (
            ("layout", self.layout, get_args(Layout)),
            ("depth_order", self.depth_order, get_args(DepthOrder)),
            ("channel_mode", self.channel_mode, get_args(ChannelMode)),
        ):
            if found not in known:
                raise GeometryError(describe_unknown_name(f"pseudo-3D {name}", found, known))

    @property
    def reversible(self) -> bool:
        """Whether an image that tiles comes back exactly and no voxel is stored twice."""
        return self.stride == self.window and self.padding == 0

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Number of window positions along rows and columns.

        Args:
            height: rows of the image, in pixels.
            width: columns of the image, in pixels.

        Returns:
            (H', W'), each ``(side + 2 * padding - window) // stride + 1``.

        Raises:
            GeometryError: if the image is smaller than one window, or does not tile and ``allow_crop`` is off.
        """
        spans = [side + 2 * self.padding - self.window for side in (height, width)]
        if min(spans) < 0:
            raise GeometryError(f"image {height}x{width} is smaller than one window of {self.window}")
        left = [span % self.stride for span in spans]
        if any(left) and not self.allow_crop:
            raise GeometryError(
                f"image {height}x{width} does not tile with window {self.window}, stride {self.stride}: "
                f"the last {left[0]} rows and {left[1]} columns would be lost. Crop or resize the image, or allow_crop"
            )
        return spans[0] // self.stride + 1, spans[1] // self.stride + 1

    def offsets(self) -> list[tuple[int, int]]:
        """Pixel offset (i, j) inside the window for each depth index."""
        rows = range(self.window)
        serpentine = self.depth_order == "serpentine"
        return [(i, j) for i in rows for j in (rows[::-1] if serpentine and i % 2 else rows)]

    def slices(self, height: int, width: int) -> Iterator[tuple[slice, slice]]:
        """For each depth index, the rows and columns of the padded image that its slice holds.

        Args:
            height: rows of the image, in pixels.
            width: columns of the image, in pixels.

        Returns:
            window * window pairs of slices, each selecting (H', W') pixels.

        Raises:
            GeometryError: as :meth:`grid`.
        """
        grid_h, grid_w = self.grid(height, width)
        for i, j in self.offsets():
            yield (
                slice(i, i + (grid_h - 1) * self.stride + 1, self.stride),
                slice(j, j + (grid_w - 1) * self.stride + 1, self.stride),
            )

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape of the unrolled image.

        Args:
            channels: of the image, C.
            height: rows of the image, in pixels.
            width: columns of the image, in pixels.

        Returns:
            (C, k * k, H', W') with layout ``offset``, (C, H' * W', k, k) with layout ``window``; in channel mode ``depth`` C
            moves into the depth.

        Raises:
            GeometryError: as :meth:`grid`.
        """
        grid_h, grid_w = self.grid(height, width)
        outer, inner = (channels, 1) if self.channel_mode != "depth" else (1, channels)
        if self.layout == "window":
            return outer, inner * grid_h * grid_w, self.window, self.window
        return outer, inner * self.window**2, grid_h, grid_w

    def channels(self, view: tuple[int, ...], height: int, width: int) -> int:
        """Number of channels of the image that a view came from.

        Args:
            view: shape of the view, (C, D, H', W').
            height: rows of the image, in pixels.
            width: columns of the image, in pixels.

        Returns:
            Channels of the image.

        Raises:
            GeometryError: if no image of this size has a view of this shape.
        """
        number = 1
        if len(view) == 4:
            number = view[0] if self.channel_mode != "depth" else view[1] // self.shape(1, height, width)[1]
        expected = self.shape(number, height, width)
        if view != expected:
            raise GeometryError(f"volume {view} is not the view of a {height}x{width} image, which is {expected}")
        return number


def to_gray(image_CHW: Array) -> Array:
    """Reduce three channels to one: BT.601 luma, rounded to integers where the input is integer.

    Args:
        image_CHW: (C, H, W), one or three channels; one channel is returned as it is.

    Returns:
        (1, H, W), dtype of the input.

    Raises:
        GeometryError: for any other number of channels.
    """
    channels = image_CHW.shape[0]
    if channels == 1:
        return image_CHW
    if channels != 3:
        raise GeometryError(f"channel mode gray takes 1 or 3 channels; found {channels}")
    luma = np.tensordot(np.asarray(LUMA_RGB, np.float64), image_CHW.astype(np.float64), axes=1)[None]
    if np.issubdtype(image_CHW.dtype, np.integer):
        luma = np.rint(luma)
    return luma.astype(image_CHW.dtype)


def unroll(image_CHW: Array, spec: Pseudo3D) -> Array:
    """Move the pixels of every window of an image to the depth axis of a volume.

    Values are gathered, never resampled; the dtype stays.

    Args:
        image_CHW: (C, H, W), numbers of any dtype; one or three channels in mode ``gray``.
        spec: the geometry.

    Returns:
        (C, D, H', W') as given by :meth:`Pseudo3D.shape`, a new contiguous array.

    Raises:
        GeometryError: if the image is not (C, H, W), is smaller than a window or does not tile.
    """
    if image_CHW.ndim != 3:
        raise GeometryError(f"an image is (C, H, W); found shape {image_CHW.shape}")
    if spec.channel_mode == "gray":
        image_CHW = to_gray(image_CHW)
    channels, height, width = image_CHW.shape
    grid_h, grid_w = spec.grid(height, width)
    k = spec.window
    if spec.reversible and spec.depth_order == "row_major":
        view = _permute(np.ascontiguousarray(image_CHW[:, : grid_h * k, : grid_w * k]), k, spec.layout)
    else:
        view = np.empty((channels, k * k, grid_h, grid_w), image_CHW.dtype)
        padded = np.pad(image_CHW, ((0, 0), (spec.padding,) * 2, (spec.padding,) * 2)) if spec.padding else image_CHW
        for d, (rows, columns) in enumerate(spec.slices(height, width)):
            view[:, d] = padded[:, rows, columns]
        if spec.layout == "window":
            view = np.ascontiguousarray(view.reshape(channels, k * k, -1).swapaxes(1, 2))
    return view.reshape(spec.shape(channels, height, width))


def _permute(image_CHW: Array, k: int, layout: Layout) -> Array:
    """Unroll a contiguous image that tiles, with stride = window = k, moving several bytes at a time where possible.

    NumPy's strided copies move one element at a time. Layout ``window`` moves a row of a window as one element. If that row
    is a machine word, pixel j is the low part of the word that begins there, and narrowing words is a vectorised cast.
    """
    channels, height, width = image_CHW.shape
    grid_h, grid_w, size = height // k, width // k, image_CHW.itemsize
    if layout == "window":
        rows = image_CHW.view(f"V{k * size}").reshape(channels, grid_h, k, grid_w)
        return rows.swapaxes(2, 3).copy().view(image_CHW.dtype)
    tiled = image_CHW.reshape(channels, grid_h, k, grid_w, k).transpose(0, 2, 4, 1, 3)
    if k == 1 or k * size not in WORD_BYTES:
        return tiled.copy()
    view = np.empty(tiled.shape, image_CHW.dtype)
    view[..., -1, :] = tiled[..., -1, :]  # the last words would end behind the image
    shape, strides = (channels, grid_h - 1, k, grid_w), tuple(size * step for step in (height * width, k * width, width, k))
    for j in range(k):
        words = np.ndarray(shape, f"<u{k * size}", image_CHW.view(np.uint8).data, j * size, strides)
        np.copyto(view.view(f"<u{size}")[:, :, j, :-1].swapaxes(1, 2), words, casting="unsafe")
    return view


def coverage(spec: Pseudo3D, height: int, width: int) -> Array:
    """Count how many windows read each pixel.

    Args:
        spec: the geometry.
        height: rows of the image, in pixels.
        width: columns of the image, in pixels.

    Returns:
        (H, W), int32; 0 marks a pixel that the view does not hold.

    Raises:
        GeometryError: as :meth:`Pseudo3D.grid`.
    """
    padded = np.zeros((height + 2 * spec.padding, width + 2 * spec.padding), np.int32)
    for rows, columns in spec.slices(height, width):
        padded[rows, columns] += 1
    return padded[spec.padding : spec.padding + height, spec.padding : spec.padding + width]


def counts_to_fold(spec: Pseudo3D, height: int, width: int, uncovered: float | None) -> Array:
    """The coverage that a fold divides by.

    Args:
        spec: the geometry.
        height: rows of the image, in pixels.
        width: columns of the image, in pixels.
        uncovered: value of pixels that no window reads; None if there must be none.

    Returns:
        (H, W), int32.

    Raises:
        GeometryError: if pixels are uncovered and ``uncovered`` is None.
    """
    counts = coverage(spec, height, width)
    missing = int((counts == 0).sum())
    if missing and uncovered is None:
        raise GeometryError(f"{missing} of {height * width} pixels are read by no window; say which value they take")
    return counts


def _to_offset_layout(volume: Array, spec: Pseudo3D, grid: tuple[int, int], channels: int) -> Array:
    k = spec.window
    if spec.layout == "window":
        volume = volume.reshape(channels, grid[0] * grid[1], k * k).swapaxes(1, 2)
    return volume.reshape(channels, k * k, *grid)


def fold(volume: Array, spec: Pseudo3D, height: int, width: int, *, uncovered: float | None = None) -> Array:
    """Turn a pseudo-3D volume back into its image; overlapping windows are averaged.

    Exact for every volume of integers or float32 that came from an image; for the output of a network it is the
    least-squares image.

    Args:
        volume: (C, D, H', W') as made by :func:`unroll`.
        spec: the geometry that made it.
        height: rows of the image.
        width: columns of the image.
        uncovered: value for pixels that no window read; None refuses such a volume.

    Returns:
        (C, H, W), same dtype (integers are rounded).

    Raises:
        GeometryError: if the shape is not the one that ``spec`` gives, or pixels are uncovered and no value was given.
    """
    channels = spec.channels(volume.shape, height, width)
    grid = spec.grid(height, width)
    depth = _to_offset_layout(volume, spec, grid, channels)
    if spec.reversible and (grid[0] * spec.window, grid[1] * spec.window) == (height, width):
        image = np.empty((channels, height, width), volume.dtype)
        for d, (rows, columns) in enumerate(spec.slices(height, width)):
            image[:, rows, columns] = depth[:, d]
        return image
    counts = counts_to_fold(spec, height, width, uncovered)
    pad = spec.padding
    total = np.zeros((channels, height + 2 * pad, width + 2 * pad), np.float64)
    for d, (rows, columns) in enumerate(spec.slices(height, width)):
        total[:, rows, columns] += depth[:, d]
    mean = total[:, pad : pad + height, pad : pad + width] / np.maximum(counts, 1)
    if np.issubdtype(volume.dtype, np.integer):
        mean = np.rint(mean)
    return np.where(counts == 0, uncovered or 0, mean).astype(volume.dtype)
