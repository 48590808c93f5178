"""Batch: views of several samples, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from storage_schema.errors import GeometryError
from storage_schema.vocabulary import Presentation

#: Where a batch mixes presentations.
JOINT = "joint"
#: What a batch may be of; the position of a name seeds its chance, so names are only ever added at the end.
STREAMS = (*sorted(Presentation), JOINT)
#: Named arrays that a method draws from one sample.
Views = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Named tensors, (B, ...) each, and the keys of the samples behind them.

    Attributes:
        stream: a presentation, or ``joint`` where samples of several share one tensor.
        keys: of this rank's samples.
        counts: for each presentation, how many samples all ranks together hold in this step; losses are weighted by
            their sum, so that uneven ranks give the gradient of the whole batch.
        tensors: by name.
    """

    stream: str
    keys: tuple[str, ...]
    counts: dict[str, int]
    tensors: dict[str, torch.Tensor]

    @property
    def global_size(self) -> int:
        """Samples of this stream on all ranks."""
        return sum(self.counts.values())

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)


def collate(views: Sequence[Views], keys: Sequence[str], stream: str, global_size: int) -> Batch:
    """Stack the views of samples.

    Raises:
        GeometryError: if two samples gave views of different shapes, naming view, shapes and keys.
    """
    tensors = {}
    for name, first in views[0].items():
        for other, key in zip(views, keys, strict=True):
            if other[name].shape != first.shape:
                shapes = f"{first.shape} of {keys[0]} and {other[name].shape} of {key}"
                raise GeometryError(f"view {name!r} of {stream} has shapes {shapes}; a method must draw equal ones")
        tensors[name] = torch.from_numpy(np.stack([v[name] for v in views]))
    return Batch(stream=stream, keys=tuple(keys), counts={stream: global_size}, tensors=tensors)
