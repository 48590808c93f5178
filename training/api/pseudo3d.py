"""The pseudo-3D view of images, of arrays and of tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, overload

from crossdim.storage_schema import pseudo3d
from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Array

if TYPE_CHECKING:
    from torch import Tensor

#: Window 4 at stride 4: a permutation of the pixels.
DEFAULT = Pseudo3D()


@overload
def unroll(image: Tensor, geometry: Pseudo3D = ...) -> Tensor: ...
@overload
def unroll(image: Array, geometry: Pseudo3D = ...) -> Array: ...
def unroll(image: Any, geometry: Pseudo3D = DEFAULT) -> Any:
    """Lay every window of an image along the depth of a volume.

    Args:
        image: a NumPy array (C, H, W), or a tensor (C, H, W) or (B, C, H, W), through which gradients pass.
        geometry: window, stride and layout.

    Returns:
        (C, D, H', W') or (B, C, D, H', W'), of the same type and dtype.

    Raises:
        GeometryError: if the image has other axes, is smaller than a window or does not tile.
    """
    if not _is_tensor(image):
        return pseudo3d.unroll(image, geometry)
    from crossdim.training.layers.pseudo3d import unroll_torch

    if image.ndim not in (3, 4):
        raise GeometryError(f"an image is (C, H, W), and a batch of them (B, C, H, W); found shape {tuple(image.shape)}")
    return unroll_torch(image, geometry) if image.ndim == 4 else unroll_torch(image[None], geometry)[0]


@overload
def fold(volume: Tensor, height: int, width: int, geometry: Pseudo3D = ..., *, uncovered: float | None = ...) -> Tensor: ...
@overload
def fold(volume: Array, height: int, width: int, geometry: Pseudo3D = ..., *, uncovered: float | None = ...) -> Array: ...
def fold(volume: Any, height: int, width: int, geometry: Pseudo3D = DEFAULT, *, uncovered: float | None = None) -> Any:
    """The image that a pseudo-3D volume shows: the inverse of :func:`unroll`. Overlapping windows are averaged.

    Args:
        volume: a NumPy array (C, D, H', W'), or a tensor (C, D, H', W') or (B, C, D, H', W').
        height: rows of the image.
        width: columns of the image.
        geometry: that the volume was made with.
        uncovered: value of pixels that no window read; None refuses such a volume.

    Returns:
        (C, H, W) or (B, C, H, W), of the same type and dtype; integers are rounded.

    Raises:
        GeometryError: if no image of this size has such a view, or pixels are uncovered and no value was given.
    """
    if not _is_tensor(volume):
        return pseudo3d.fold(volume, geometry, height, width, uncovered=uncovered)
    from crossdim.training.layers.pseudo3d import fold_torch

    if volume.ndim not in (4, 5):
        raise GeometryError(f"a view is (C, D, H, W), and a batch of them (B, C, D, H, W); found shape {tuple(volume.shape)}")
    batch = volume if volume.ndim == 5 else volume[None]
    folded = fold_torch(batch, geometry, height, width, uncovered=uncovered)
    return folded if volume.ndim == 5 else folded[0]


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")  # not imported for those who have arrays alone
    return torch is not None and isinstance(value, torch.Tensor)
