"""Batch: views of several samples, stacked. A batch holds one presentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from storage_schema.errors import GeometryError
from storage_schema.vocabulary import Presentation

#: Named arrays that a method draws from one sample.
Views = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Named tensors, (B, ...) each, and the keys of the samples behind them.

    ``global_size`` is how many samples of this presentation all ranks together hold in this step; losses are weighted
    by it, so that uneven ranks give the gradient of the whole batch.
    """

    presentation: Presentation
    keys: tuple[str, ...]
    global_size: int
    tensors: dict[str, torch.Tensor]

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return Batch(presentation=self.presentation, keys=self.keys, global_size=self.global_size, tensors=moved)


def collate(views: Sequence[Views], keys: Sequence[str], presentation: Presentation, global_size: int) -> Batch:
    """Stack the views of samples.

    Raises:
        GeometryError: if two samples gave views of different shapes, naming view, shapes and keys.
    """
    tensors = {}
    for name, first in views[0].items():
        for other, key in zip(views, keys, strict=True):
            if other[name].shape != first.shape:
                shapes = f"{first.shape} of {keys[0]} and {other[name].shape} of {key}"
                raise GeometryError(f"view {name!r} of {presentation} has shapes {shapes}; a method must draw equal ones")
        tensors[name] = torch.from_numpy(np.stack([v[name] for v in views]))
    return Batch(presentation=presentation, keys=tuple(keys), global_size=global_size, tensors=tensors)
