"""The pseudo-3D view of images inside a network: differentiable, and bit for bit the view that the pipeline stores.

Source: Gao et al., CDSSL-P3D (arXiv 2406.00947). The geometry is :class:`storage_schema.pseudo3d.Pseudo3D`.
"""

# Axes: B batch, C channel, D depth (offsets inside a window), H height, W width.
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from storage_schema.errors import GeometryError
from storage_schema.pseudo3d import Pseudo3D


def unroll_torch(image_BCHW: Tensor, spec: Pseudo3D) -> Tensor:
    """Lay every window of each image along depth; the gradient of a pixel is the sum over the windows that read it.

    Colour is not turned gray here: that is preprocessing, and belongs before augmentation.

    Args:
        image_BCHW: any dtype that torch can index; one channel in mode ``gray``.
        spec: the geometry.

    Returns:
        (B, C, D, H', W') as given by :meth:`Pseudo3D.shape`, contiguous.

    Raises:
        GeometryError: if the image is smaller than a window, does not tile, or has colours in mode ``gray``.
    """
    batch, channels, height, width = image_BCHW.shape
    if spec.channel_mode == "gray" and channels != 1:
        raise GeometryError(f"channel mode gray takes 1 channel inside a network; found {channels}. Convert the image before")
    if spec.padding:
        image_BCHW = functional.pad(image_BCHW, (spec.padding,) * 4)
    slices = spec.slices(height, width)
    depth_last = spec.layout == "window"  # there every window is a slice, so its position comes before the offset
    view = torch.stack([image_BCHW[:, :, rows, columns] for rows, columns in slices], dim=-1 if depth_last else 2)
    return view.reshape(batch, *spec.shape(channels, height, width))
