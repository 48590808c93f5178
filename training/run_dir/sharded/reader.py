"""Reads tensors from a folder of shards, however they are sharded now. No byte is used before its hash is checked."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.utils import _DistWrapper
from torch.distributed.tensor import DTensor

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.layout import SHARD_INDEX
from crossdim.training.run_dir.sharded.index import MAX_INDEX_BYTES, Index
from crossdim.training.run_dir.sharded.ranks import are_several, fail_together


def read(run: Bucket, folder: str, hashes: dict[str, str], tensors: dict[str, Tensor], group: dist.ProcessGroup | None) -> None:
    """Fill tensors in place with what ``write`` stored, whatever the number of ranks that wrote it.

    All ranks of the group call it. Each reads the objects that its own parts lie in; those are small in number if as many ranks
    read as wrote. The folder may hold more tensors than are asked for.

    Args:
        run: folder of the run.
        folder: where in it.
        hashes: what ``write`` returned.
        tensors: plain tensors and DTensors by name, of the stored shape and type.
        group: the ranks: None for the default group, or for this process alone where there is none.

    Raises:
        StorageError: on every rank, if on one of them an object is missing or not what was written, or a tensor was not stored,
            or with another shape or type. Tensors are then partly filled, and must be filled anew or let go.
    """
    with fail_together():
        ranks = _DistWrapper(group, are_several(), coordinator_rank=0)
        ranks.all_gather("read", lambda: _fill(_Objects.of(run.at(folder), hashes), tensors))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Objects:
    """A folder whose objects are believed only with their hash."""

    bucket: Bucket
    hashes: dict[str, str]
    sizes: dict[str, int]

    @classmethod
    def of(cls, bucket: Bucket, hashes: dict[str, str]) -> _Objects:
        sizes = {stored.path: stored.size for stored in bucket.list_objects()}
        return cls(bucket=bucket, hashes=hashes, sizes=sizes)

    def index(self) -> Index:
        found = self.sizes.get(SHARD_INDEX, 0)
        if found > MAX_INDEX_BYTES:
            raise StorageError(f"{self.bucket.where(SHARD_INDEX)}: has {found} bytes; an index has at most {MAX_INDEX_BYTES}")
        return Index.from_json(self.read(SHARD_INDEX, found), self.bucket.where(SHARD_INDEX))

    def read(self, name: str, size: int) -> bytes:
        """An object of ``size`` bytes; nothing is allocated for one of another size."""
        where = self.bucket.where(name)
        if name not in self.sizes or name not in self.hashes:
            absent = "is missing" if name not in self.sizes else "has no recorded sha256"
            raise StorageError(f"{where}: {absent}; the checkpoint is not whole, take another")
        if self.sizes[name] != size:
            raise StorageError(
                f"{where}: has {self.sizes[name]} bytes and not the {size} that were written; take another checkpoint"
            )
        data = self.bucket.read_range(name, 0, size)
        if hashlib.sha256(data).hexdigest() != self.hashes[name]:
            raise StorageError(f"{where}: its bytes do not have the recorded sha256; take another checkpoint")
        return data


@torch.no_grad()
def _fill(objects: _Objects, tensors: dict[str, Tensor]) -> None:
    index = objects.index()
    for name, tensor in tensors.items():
        _check_like(name, tensor, index, objects.bucket)
    planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    planner.set_up_planner(dict(tensors), index.metadata)
    items = planner.create_local_plan().items
    _check_complete(tensors, items, objects.bucket)
    by_object: dict[str, list[ReadItem]] = defaultdict(list)
    for item in items:
        by_object[index.places[item.storage_index].object].append(item)
    sizes = index.sizes()
    for name in sorted(by_object):
        data = bytearray(objects.read(name, sizes[name]))  # torch looks only at what it may write to
        for item in by_object[name]:
            planner.resolve_tensor(item).detach().copy_(_read_chunk(data, item, index))


def _read_chunk(data: bytearray, item: ReadItem, index: Index) -> Tensor:
    """The part of a chunk that is asked for."""
    tensor = index.tensors[item.storage_index.fqn]
    (sizes,) = (chunk.sizes for chunk in tensor.chunks if chunk.offsets == item.storage_index.offset)
    at = index.places[item.storage_index].at
    chunk = torch.frombuffer(data, dtype=tensor.properties.dtype, count=sizes.numel(), offset=at).reshape(sizes)
    return chunk[tuple(slice(o, o + s) for o, s in zip(item.storage_offsets, item.lengths, strict=True))]


def _check_like(name: str, tensor: Tensor, index: Index, bucket: Bucket) -> None:
    stored = index.tensors.get(name)
    if stored is None:
        raise StorageError(f"{bucket.where('')}: holds no tensor {name}; take a checkpoint of the same model and optimizer")
    if (stored.size, stored.properties.dtype) != (tensor.shape, tensor.dtype):
        found = f"{stored.properties.dtype} of {list(stored.size)}"
        raise StorageError(
            f"{bucket.where('')}: {name} is {found}, expected {tensor.dtype} of {list(tensor.shape)}; take one of the same model"
        )


def _check_complete(tensors: dict[str, Tensor], items: Sequence[ReadItem], bucket: Bucket) -> None:
    """DCP leaves what no chunk covers as it was."""
    planned: dict[str, int] = defaultdict(int)
    for item in items:
        planned[item.dest_index.fqn] += math.prod(item.lengths)
    for name, tensor in tensors.items():
        expected = (tensor.to_local() if isinstance(tensor, DTensor) else tensor).numel()
        if planned[name] != expected:
            raise StorageError(
                f"{bucket.where('')}: {planned[name]} of the {expected} numbers of {name} are stored; take another checkpoint"
            )
