"""Batches: the views of several samples as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.vocabulary import Presentation

#: Stream of batches that mix presentations.
JOINT = "joint"
#: Streams of batches. The position of a name is part of a random seed, so names are only added at the end.
STREAMS = (*sorted(Presentation), JOINT)
#: Named arrays that a method draws from one sample: views, or a source and the plans from which the device renders views.
Views = dict[str, npt.NDArray[Any]]
#: Arrays whose sizes may differ between samples; a batch pads them with zeros at the end to the largest size of each axis.
RAGGED = frozenset({"source"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Named tensors, (B, ...) each, and the keys of their samples.

    Attributes:
        stream: a presentation, or ``joint`` where samples of several presentations share one tensor.
        keys: of this rank's samples.
        counts: for each presentation, the number of samples that all ranks together hold in this step. Losses are weighted by
            their sum, so that ranks with different numbers of samples give the gradient of the whole batch.
        tensors: by name, of the samples of ``keys``. A rank without a sample holds those of one sample of another rank, with
            weight 0, so that it takes part in every collective.
        least: the smallest number of samples of this stream on any rank in this step.
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
    """Stack the views of samples; arrays named in ``RAGGED`` may differ in size and are padded.

    Args:
        views: of each sample, arrays by name; the same names for all samples.
        keys: of the samples.
        stream: what the batch is of, see :class:`Batch`.
        global_size: samples of this stream on all ranks.

    Returns:
        A batch whose tensors are (B, ...).

    Raises:
        GeometryError: if two samples have views of different names or shapes.
    """
    for other, key in zip(views, keys, strict=True):
        if other.keys() != views[0].keys():
            names = f"{sorted(views[0])} of {keys[0]} and {sorted(other)} of {key}"
            raise GeometryError(f"samples of {stream} have views {names}; what shares a batch must be drawn alike")
    tensors = {}
    for name, first in views[0].items():
        if name in RAGGED:
            tensors[name] = torch.from_numpy(pad_and_stack([view[name] for view in views]))
            continue
        for other, key in zip(views, keys, strict=True):
            if other[name].shape != first.shape:
                shapes = f"{first.shape} of {keys[0]} and {other[name].shape} of {key}"
                raise GeometryError(f"view {name!r} of {stream} has shapes {shapes}; a method must draw equal ones")
        tensors[name] = torch.from_numpy(np.stack([v[name] for v in views]))
    return Batch(stream=stream, keys=tuple(keys), counts={stream: global_size}, tensors=tensors, least=len(keys))


def pad_and_stack(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Stack arrays of different sizes, with zeros at the ends of the smaller ones.

    Args:
        arrays: with the same number of axes.

    Returns:
        (B, ...) in the smallest dtype that holds all of them.
    """
    largest = np.max([array.shape for array in arrays], axis=0)
    batch = np.zeros((len(arrays), *largest), np.result_type(*arrays))
    for row, array in zip(batch, arrays, strict=True):
        row[tuple(slice(n) for n in array.shape)] = array
    return batch
