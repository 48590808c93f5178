"""The index of a sharded checkpoint: which tensors a folder holds, and where the bytes of their chunks lie.

It is JSON: data and no program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import StorageError

#: Far above any index of ours (a chunk takes some 80 bytes), and below what would fill a host.
MAX_INDEX_BYTES = 2**30
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.bfloat16, torch.float16, torch.float32, torch.float64),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a chunk lies: the object and the first byte in it."""

    object: str
    at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """All chunks of a folder.

    Attributes:
        tensors: by name, as DCP plans with them.
        places: by name of the tensor and offset of the chunk.
    """

    tensors: dict[str, TensorStorageMetadata]
    places: dict[MetadataIndex, Place]

    @property
    def metadata(self) -> Metadata:
        """What DCP plans a reading from."""
        return Metadata(state_dict_metadata=dict(self.tensors))

    def sizes(self) -> dict[str, int]:
        """Bytes of each object: where its last chunk ends."""
        found: dict[str, int] = {}
        for name, tensor in self.tensors.items():
            for chunk in tensor.chunks:
                place = self.places[MetadataIndex(name, chunk.offsets)]
                end = place.at + math.prod(chunk.sizes) * tensor.properties.dtype.itemsize
                found[place.object] = max(end, found.get(place.object, 0))
        return found

    def to_json(self) -> bytes:
        """As it is stored."""
        return canonical_json({name: self._entry(name, tensor) for name, tensor in self.tensors.items()})

    def _entry(self, name: str, tensor: TensorStorageMetadata) -> dict[str, Any]:
        chunks = []
        for chunk in tensor.chunks:
            place = self.places[MetadataIndex(name, chunk.offsets)]
            chunks.append([list(chunk.offsets), list(chunk.sizes), place.object, place.at])
        dtype = str(tensor.properties.dtype).removeprefix("torch.")
        return {"dtype": dtype, "shape": list(tensor.size), "chunks": chunks}

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Index:
        """Parse an index.

        Args:
            data: the bytes of ``index.json``.
            where: they came from, for the error.

        Returns:
            Shapes of the tensors, and where the bytes of their chunks lie.

        Raises:
            StorageError: if it is not an index that we wrote.
        """
        tensors: dict[str, TensorStorageMetadata] = {}
        places: dict[MetadataIndex, Place] = {}
        try:
            for name, entry in json.loads(data).items():
                tensors[name] = _tensor(entry)
                places |= {MetadataIndex(name, o): Place(object=str(obj), at=_count(at)) for o, _, obj, at in entry["chunks"]}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StorageError(
                f"{where}: is no index of shards ({error!r}); expected the JSON that was written with them"
            ) from error
        return cls(tensors=tensors, places=places)


def _tensor(entry: Mapping[str, Any]) -> TensorStorageMetadata:
    shape = _box(entry["shape"])
    chunks = [ChunkStorageMetadata(offsets=_box(offsets), sizes=_box(sizes)) for offsets, sizes, _, _ in entry["chunks"]]
    if len({tuple(chunk.offsets) for chunk in chunks}) < len(chunks):
        raise ValueError("two chunks begin at one place")
    for chunk in chunks:
        if any(o + s > side for o, s, side in zip(chunk.offsets, chunk.sizes, shape, strict=True)):
            raise ValueError(f"chunk {chunk} leaves its tensor of {list(shape)}")
    return TensorStorageMetadata(properties=TensorProperties(dtype=DTYPES[entry["dtype"]]), size=shape, chunks=chunks)


def _box(sides: list[object]) -> torch.Size:
    return torch.Size([_count(side) for side in sides])


def _count(number: object) -> int:
    if type(number) is not int or not 0 <= number < 2**63:
        raise ValueError(f"{number!r} counts nothing")
    return number
