"""Writes each rank's part of the tensors as objects of a bucket, and the index of all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.state_dict_saver import _save_state_dict
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.layout import SHARD_INDEX, shard_name
from crossdim.training.run_dir.sharded.index import DTYPES, Index, Place
from crossdim.training.run_dir.sharded.ranks import are_several, fail_together

#: An object ends where the next tensor would bring it above this: so much host memory does writing take, or one tensor's part.
OBJECT_BYTES = 128 * 2**20
#: Every chunk begins at a multiple of it, so that readers may look at its numbers in place.
ALIGNMENT = 64


def write(run: Bucket, folder: str, tensors: dict[str, Tensor], group: dist.ProcessGroup | None) -> dict[str, str]:
    """Store tensors, each rank its own part; on return all ranks' parts are stored.

    All ranks of the group call it with the same names. What several ranks hold is written by one of them. It may run in a
    thread if ``group`` is used by nothing else meanwhile; the tensors must not change until it returns (see ``snapshot``).

    Args:
        run: folder of the run.
        folder: where in it; objects of the same name are replaced.
        tensors: plain tensors and DTensors by name.
        group: the ranks, best with gloo: None for the default group, or for this process alone where there is none.

    Returns:
        On every rank, the sha256 of every object by its name in ``folder``. The index is among them.

    Raises:
        StorageError: on every rank, if on one of them an entry cannot be stored or the store does not take it.
    """
    with fail_together():
        # dcp.save itself warns that a single process is a single process.
        metadata = _save_state_dict(
            state_dict=dict(tensors),
            storage_writer=BucketWriter(run.at(folder)),
            process_group=group,
            no_dist=not are_several(),
            planner=DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
        )
    hashes: dict[str, str] = metadata.storage_data
    return hashes


class BucketWriter(StorageWriter):
    """What DCP asks of a store. Ranks' hashes come back in the metadata, which it hands to everybody."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def reset(self, checkpoint_id: object = None) -> None:
        """Nothing is kept from one writing to the next."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Do nothing: folders of a bucket need not be made.

        Args:
            is_coordinator: whether this is the rank that writes the index.
            *args: of DCP, not used.
            **kwargs: of DCP, not used.
        """

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        """No: a bucket is more than a path, so it cannot be guessed from one."""
        return False

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Refuse what is no tensor of numbers."""
        for item in plan.items:
            dtype = item.tensor_data.properties.dtype if item.tensor_data else None
            if dtype not in DTYPES.values():
                found = f"a tensor of {dtype}" if dtype else "no tensor"
                raise StorageError(
                    f"{self._bucket.where('')}: {item.index.fqn} is {found}; store only tensors of {', '.join(DTYPES)}"
                )
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tell every rank its number, which its objects are named by."""
        return [replace(plan, storage_data=rank) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's objects.

        Args:
            plan: DCP's, of this rank: which tensors and chunks to write.
            planner: DCP's, which gives the tensors of the plan.

        Returns:
            A finished future of one result for each item: its place, and the sha256 of its object.
        """
        written: Future[list[WriteResult]] = Future()
        objects = _group_by_object(plan.items, plan.storage_data)
        written.set_result([result for name, items in objects for result in self._put(name, items, planner)])
        return written

    def _put(self, name: str, items: list[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        pieces: list[Any] = []
        begins, end = [], 0
        for item in items:
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, Tensor)  # nothing else passed prepare_local_plan
            numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            gap = -end % ALIGNMENT
            begins.append(end + gap)
            pieces += [bytes(gap), numbers]
            end += gap + numbers.nbytes
        data = b"".join(pieces)
        self._bucket.put(name, data)
        sha256 = hashlib.sha256(data).hexdigest()
        places = [Place(object=name, at=begin) for begin in begins]
        return [
            WriteResult(index=item.index, size_in_bytes=len(data), storage_data=(place, sha256))
            for item, place in zip(items, places, strict=True)
        ]

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index, which makes the folder readable; called on the first rank only.

        Args:
            metadata: DCP's, with the shapes of all tensors; the hashes of all objects are stored in it.
            results: of all ranks' :meth:`write_data`.
        """
        written = {result.index: result.storage_data for of_rank in results for result in of_rank}
        tensors = {name: t for name, t in metadata.state_dict_metadata.items() if isinstance(t, TensorStorageMetadata)}
        index = Index(tensors=tensors, places={key: place for key, (place, _) in written.items()})
        data = index.to_json()
        self._bucket.put(SHARD_INDEX, data)
        hashes = {place.object: sha256 for place, sha256 in written.values()}
        metadata.storage_data = hashes | {SHARD_INDEX: hashlib.sha256(data).hexdigest()}


def _group_by_object(items: list[WriteItem], rank: int) -> Iterator[tuple[str, list[WriteItem]]]:
    """Group what a rank writes by object. Whole tensors, which every reader needs, lie apart from shards, which few do."""
    for whole in (True, False):
        chosen = [item for item in items if _is_whole(item) is whole]
        for number, part in enumerate(_group_by_size(chosen)):
            yield shard_name(rank, number, whole=whole), part


def _is_whole(item: WriteItem) -> bool:
    assert item.tensor_data is not None
    return item.tensor_data.chunk.sizes == item.tensor_data.size


def _group_by_size(items: list[WriteItem]) -> Iterator[list[WriteItem]]:
    """Group items so that an object has at most :data:`OBJECT_BYTES`, or one item."""
    part: list[WriteItem] = []
    left = OBJECT_BYTES
    for item in items:
        assert item.tensor_data is not None
        size = item.tensor_data.chunk.sizes.numel() * item.tensor_data.properties.dtype.itemsize
        if part and size > left:
            yield part
            part, left = [], OBJECT_BYTES
        part.append(item)
        left -= size
    if part:
        yield part
