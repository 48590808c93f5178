"""The pseudo-3D view of images inside a network: differentiable, and bit for bit the view that the pipeline stores.

Source: Gao et al., CDSSL-P3D (arXiv 2406.00947). The geometry is :class:`crossdim.storage_schema.pseudo3d.Pseudo3D`.
"""

# Axes: B batch, C channel, D depth (offsets inside a window), H height, W width.
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.pseudo3d import Pseudo3D, counts_to_fold


def unroll_torch(image_BCHW: Tensor, spec: Pseudo3D) -> Tensor:
    """Place the pixels of every window of each image along depth.

    The gradient of a pixel is the sum over the windows that read it.

    Colour is not converted to gray here: that is preprocessing, and belongs before augmentation.

    Args:
        image_BCHW: any dtype that torch can index; one channel in mode ``gray``.
        spec: the geometry.

    Returns:
        (B, C, D, H', W') as given by :meth:`Pseudo3D.shape`, new and contiguous.

    Raises:
        GeometryError: if the image is smaller than a window, is not tiled by windows, or has colours in mode ``gray``.
    """
    batch, channels, height, width = image_BCHW.shape
    if spec.channel_mode == "gray" and channels != 1:
        raise GeometryError(f"channel mode gray takes 1 channel inside a network; found {channels}. Convert the image before")
    k, (grid_h, grid_w) = spec.window, spec.grid(height, width)
    if spec.reversible and spec.depth_order == "row_major":
        tiled = image_BCHW[:, :, : grid_h * k, : grid_w * k].reshape(batch, channels, grid_h, k, grid_w, k)
        view = tiled.permute((0, 1, 3, 5, 2, 4) if spec.layout == "offset" else (0, 1, 2, 4, 3, 5))
        view = view.clone(memory_format=torch.contiguous_format)
    else:
        padded = functional.pad(image_BCHW, (spec.padding,) * 4) if spec.padding else image_BCHW
        offset_axis = 2 if spec.layout == "offset" else -1  # a slice of layout window is one position, so that comes first
        view = torch.stack([padded[:, :, rows, columns] for rows, columns in spec.slices(height, width)], dim=offset_axis)
    return view.reshape(batch, *spec.shape(channels, height, width))


def fold_torch(volume_BCDHW: Tensor, spec: Pseudo3D, height: int, width: int, *, uncovered: float | None = None) -> Tensor:
    """The images that pseudo-3D volumes show; overlapping windows are averaged, and share the gradient evenly.

    The exact inverse of :func:`unroll_torch`; for the output of a network, the least-squares image. Averages are computed
    in float64, as in :func:`crossdim.storage_schema.pseudo3d.fold`, so both give the same bits; a permutation needs none.

    Args:
        volume_BCDHW: (B, C, D, H', W') as made by :func:`unroll_torch`.
        spec: the geometry that made it.
        height: rows of the images.
        width: columns of the images.
        uncovered: value for pixels that no window read; None refuses such a volume.

    Returns:
        (B, C, H, W), same dtype (integers are rounded), new and contiguous.

    Raises:
        GeometryError: if the shape is not the one ``spec`` gives, or pixels are uncovered and no value was given.
    """
    batch, channels = len(volume_BCDHW), spec.channels(tuple(volume_BCDHW.shape[1:]), height, width)
    k, (grid_h, grid_w) = spec.window, spec.grid(height, width)
    if spec.layout == "offset":
        depth = volume_BCDHW.reshape(batch, channels, k * k, grid_h, grid_w)
    else:
        depth = volume_BCDHW.reshape(batch, channels, grid_h, grid_w, k * k).permute(0, 1, 4, 2, 3)
    if spec.reversible and (grid_h * k, grid_w * k) == (height, width):
        if spec.depth_order == "serpentine":  # reversing every odd row undoes itself
            depth = depth[:, :, [i * k + j for i, j in spec.offsets()]]
        tiled = depth.reshape(batch, channels, k, k, grid_h, grid_w).permute(0, 1, 4, 2, 5, 3)
        return tiled.clone(memory_format=torch.contiguous_format).reshape(batch, channels, height, width)
    counts = torch.from_numpy(counts_to_fold(spec, height, width, uncovered)).to(volume_BCDHW.device)
    pad = spec.padding
    total = depth.new_zeros((batch, channels, height + 2 * pad, width + 2 * pad), dtype=torch.float64)
    for d, (rows, columns) in enumerate(spec.slices(height, width)):
        total[:, :, rows, columns] += depth[:, :, d]
    mean = total[:, :, pad : pad + height, pad : pad + width] / counts.clamp_min(1)
    if not volume_BCDHW.is_floating_point():
        mean = mean.round()
    return mean.where(counts != 0, uncovered or 0).to(volume_BCDHW.dtype)
