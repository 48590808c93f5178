"""Batch: views of several samples, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.vocabulary import Presentation

#: Where a batch mixes presentations.
JOINT = "joint"
#: What a batch may be of; the position of a name seeds its chance, so names are only ever added at the end.
STREAMS = (*sorted(Presentation), JOINT)
#: Named arrays that a method draws from one sample: views, or a source and the plans by which the device makes views of it.
Views = dict[str, npt.NDArray[Any]]
#: Arrays whose sizes may differ between samples; a batch pads them with zeros at their ends to the largest of each axis.
RAGGED = frozenset({"source"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Named tensors, (B, ...) each, and the keys of the samples behind them.

    Attributes:
        stream: a presentation, or ``joint`` where samples of several share one tensor.
        keys: of this rank's samples.
        counts: for each presentation, how many samples all ranks together hold in this step; losses are weighted by
            their sum, so that uneven ranks give the gradient of the whole batch.
        tensors: by name, of the samples of ``keys``. A rank without any holds those of one sample of another rank, which
            weigh nothing: so it takes part in every collective.
        least: the fewest samples that any rank holds of this stream in this step.
    """

    stream: str
    keys: tuple[str, ...]
    counts: dict[str, int]
    tensors: dict[str, torch.Tensor]
    least: int

    @property
    def global_size(self) -> int:
        """Samples of this stream on all ranks."""
        return sum(self.counts.values())

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)


def collate(views: Sequence[Views], keys: Sequence[str], stream: str, global_size: int) -> Batch:
    """Stack the views of samples; sources of different sizes are padded.

    Raises:
        GeometryError: if two samples gave other views, or views of different shapes, naming view, shapes and keys.
    """
    for other, key in zip(views, keys, strict=True):
        if other.keys() != views[0].keys():
            names = f"{sorted(views[0])} of {keys[0]} and {sorted(other)} of {key}"
            raise GeometryError(f"samples of {stream} have views {names}; what shares a batch must be drawn alike")
    tensors = {}
    for name, first in views[0].items():
        if name in RAGGED:
            tensors[name] = torch.from_numpy(padded([view[name] for view in views]))
            continue
        for other, key in zip(views, keys, strict=True):
            if other[name].shape != first.shape:
                shapes = f"{first.shape} of {keys[0]} and {other[name].shape} of {key}"
                raise GeometryError(f"view {name!r} of {stream} has shapes {shapes}; a method must draw equal ones")
        tensors[name] = torch.from_numpy(np.stack([v[name] for v in views]))
    return Batch(stream=stream, keys=tuple(keys), counts={stream: global_size}, tensors=tensors, least=len(keys))


def padded(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Arrays of one rank in one array, (B, ...), with zeros behind the smaller ones; of a type that holds all of them."""
    largest = np.max([array.shape for array in arrays], axis=0)
    batch = np.zeros((len(arrays), *largest), np.result_type(*arrays))
    for row, array in zip(batch, arrays, strict=True):
        row[tuple(slice(n) for n in array.shape)] = array
    return batch
