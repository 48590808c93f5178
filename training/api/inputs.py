"""What an encoder may be given, as single images, pseudo-3D views and volumes: arrays, tensors, samples and batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from crossdim.storage_schema.errors import GeometryError, describe_unknown_name
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.training.api.sample import DatasetSample

Axes = Literal["HW", "CHW", "BCHW", "DHW", "CDHW", "BCDHW"]
AXES: tuple[Axes, ...] = ("HW", "CHW", "BCHW", "DHW", "CDHW", "BCDHW")


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One image, view or volume.

    Attributes:
        values: float32, (C, H, W) for images, (C, D, H, W) otherwise.
        view_of: geometry of a pseudo-3D view; None for images and volumes.
    """

    values: Tensor
    view_of: Pseudo3D | None = None

    @property
    def is_image(self) -> bool:
        """Whether the values are those of an image as it is."""
        return self.values.ndim == 3


def split_inputs(data: Any, in_channels: int, axes: Axes | None) -> Iterator[Input]:
    """Split ``data`` into single inputs, in order.

    Args:
        data: an array or a tensor; a sample of a dataset; a batch of a loader; or several samples, as a dataset.
        in_channels: of the encoder, by which axes are told apart.
        axes: of an array or a tensor; None infers them from the shape.

    Yields:
        One image, pseudo-3D view or volume at a time.

    Raises:
        GeometryError: if the axes cannot be inferred, or do not fit.
        TypeError: for data of another kind, such as a path.
    """
    if isinstance(data, np.ndarray | Tensor):
        yield from _split_array(data, in_channels, axes)
    elif axes is not None:
        raise GeometryError("axes are those of an array or a tensor; a sample or a batch says itself what it is")
    elif isinstance(data, DatasetSample):
        yield Input(values=torch.from_numpy(data.unit()), view_of=data.pseudo3d)
    elif isinstance(data, Mapping):
        yield from _split_batch(data)
    else:
        for sample in _iterate(data):
            yield from split_inputs(sample, in_channels, None)


def _iterate(data: Any) -> Iterator[Any]:
    """The samples of a dataset or a list; text is no list of its letters."""
    if not isinstance(data, str | bytes | PathLike):
        with contextlib.suppress(TypeError):
            return iter(data)
    given = f"the path {fspath(data)!r}" if isinstance(data, str | PathLike) else f"a {type(data).__name__}"
    raise TypeError(
        f"an encoder takes arrays, tensors, samples, batches and datasets; found {given}. crossdim.open(URL) opens a dataset"
    )


def _split_batch(batch: Mapping[str, Any]) -> Iterator[Input]:
    if missing := [name for name in ("image", "size", "pseudo3d") if name not in batch]:
        raise GeometryError(f"a batch of a loader holds image, size and pseudo3d; {missing[0]} is missing")
    for image, size, view_of in zip(batch["image"], batch["size"].tolist(), batch["pseudo3d"], strict=True):
        # Without the zeros that were added behind its ends.
        yield Input(values=image[(slice(None), *map(slice, size))].float(), view_of=view_of)


def _split_array(data: Any, in_channels: int, axes: Axes | None) -> Iterator[Input]:
    read_only = isinstance(data, np.ndarray) and not data.flags.writeable  # as a dataset's own arrays, which torch warns of
    values = torch.as_tensor(data.copy() if read_only else data).float()
    named = axes or _infer_axes(tuple(values.shape), in_channels)
    if named not in AXES:
        raise GeometryError(describe_unknown_name("order of axes", named, AXES))
    if len(named) != values.ndim:
        raise GeometryError(f"axes {named!r} name {len(named)} axes; the array has {values.ndim}, of shape {tuple(values.shape)}")
    if "C" not in named:
        values = values[None]
    for one in values if "B" in named else [values]:
        yield Input(values=one)


def _infer_axes(shape: tuple[int, ...], channels: int) -> Axes:
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3:
        return "CHW" if shape[0] in (channels, 3) else "DHW"
    if len(shape) == 4 and channels in shape[:2]:
        return "BCHW" if shape[1] == channels else "CDHW"  # a volume has more slices than channels
    if len(shape) == 5:
        return "BCDHW"
    raise GeometryError(
        f"the axes of shape {shape} cannot be told apart by {channels} channels; name them with axes=, one of {', '.join(AXES)}"
    )
