"""Samples of unequal size in one tensor: crops, zero padding at the ends, and the size of each sample without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crossdim.storage_schema.errors import GeometryError

Floats = npt.NDArray[np.float32]


def crop_array(array: Floats, crop: tuple[int, ...], rng: np.random.Generator | None) -> Floats:
    """Cut a box from an array; an axis that is not larger than the box is kept whole.

    Args:
        array: (C, ...).
        crop: sides of the box, one for each spatial axis.
        rng: where the place comes from; None takes the middle.

    Returns:
        A view of ``array``, (C, ...), with sides of at most ``crop``.
    """
    room = [max(0, side - wanted) for side, wanted in zip(array.shape[1:], crop, strict=True)]
    starts = [r // 2 for r in room] if rng is None else [int(rng.integers(0, r + 1)) for r in room]
    return array[(slice(None), *(slice(start, start + wanted) for start, wanted in zip(starts, crop, strict=True)))]


def stack_and_pad(arrays: Sequence[Floats], least: Sequence[int] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack arrays (C, ...) to one tensor, with zeros at the ends of the smaller ones.

    Args:
        arrays: at least one, all of the same number of channels and axes.
        least: sides that the tensor has at least.

    Returns:
        (B, C, ...) float32, and the sides of each array before zeros were added, (B, axes) int64.

    Raises:
        GeometryError: if channels or axes differ.
    """
    kinds = {(array.ndim, array.shape[0]) for array in arrays}
    if len(kinds) != 1:
        shapes = ", ".join(sorted({str(array.shape) for array in arrays}))
        raise GeometryError(f"one batch holds images or volumes of one number of channels; found shapes {shapes}")
    sizes = np.array([array.shape[1:] for array in arrays], np.int64)
    sides = np.max([*sizes, least], axis=0) if len(least) else sizes.max(axis=0)
    batch = np.zeros((len(arrays), arrays[0].shape[0], *sides), np.float32)
    for row, array in zip(batch, arrays, strict=True):
        row[(slice(None), *(slice(side) for side in array.shape[1:]))] = array
    return torch.from_numpy(batch), torch.from_numpy(sizes)


def collate(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Samples of a dataset as a batch, as a loader makes it; a ``collate_fn`` for ``torch.utils.data.DataLoader``.

    Args:
        samples: ``dataset[i]``, or mappings with ``image``, (C, ...) array or tensor, and any other values.

    Returns:
        ``image``, float32 (B, C, ...), with zeros behind the ends of smaller samples; ``size``, int64 (B, axes), the sides of
        each before that; numbers as a tensor, anything else as a list.

    Raises:
        GeometryError: if images do not have one number of channels and axes.
    """
    image, size = stack_and_pad([np.asarray(sample["image"], np.float32) for sample in samples])
    batch: dict[str, Any] = {"image": image}
    for name in samples[0]:
        if name != "image":
            values = [sample[name] for sample in samples]
            batch[name] = torch.tensor(values) if isinstance(values[0], int | float) else values
    return batch | {"size": size}
