"""One task: reads, decodes, transforms, packs and writes its inputs, and then writes a marker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import from_document
from crossdim.pipelines import decoder_process
from crossdim.pipelines.duplicates import Duplicate
from crossdim.pipelines.jobs.item_result import ItemResult, build_duplicate, drop_repeats, find_stored_twice, knows_more
from crossdim.pipelines.jobs.items import Item, Task
from crossdim.pipelines.jobs.recipe import Decoder, ImageRecipe, Recipe, VolumeRecipe
from crossdim.pipelines.markers import FileRead, Marker, marker_path
from crossdim.pipelines.publish import WrittenObject, put
from crossdim.pipelines.quarantine import Quarantined, Step, apply_steps
from crossdim.pipelines.readers.raw import LEFT_OUT, RawItem, add_note
from crossdim.pipelines.sinks.bank import pack_bank_shard
from crossdim.pipelines.sinks.shards import pack_shard
from crossdim.pipelines.sources.reading import read_whole
from crossdim.storage_schema.bank import bank_path
from crossdim.storage_schema.digest import canonical_json, digest
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.shards import shard_path
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.versions import version_mark


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskContext:
    """What all tasks of a run have in common. Plain data, which is sent to every task."""

    sources: tuple[Bucket, ...]
    out: Bucket
    recipe: Recipe
    name: str
    split: SplitRule
    plan_digest: str
    version: int = 1

    @property
    def mark(self) -> str:
        """Of the version, in the names of its objects; empty for the first."""
        return version_mark(self.version, self.plan_digest)

    @property
    def shard_name(self) -> str:
        """What the names of shards begin with."""
        return f"{self.name}-{self.mark}" if self.mark else self.name

    @property
    def bank_path(self) -> str:
        """Path of the bank of a volume dataset."""
        assert isinstance(self.recipe, VolumeRecipe)
        return bank_path(self.shard_name, f"{self.recipe.resample.spacing_mm:g}mm")


def read_raw(item: Item, context: TaskContext) -> RawItem:
    """Read the files of an item.

    Args:
        item: of the plan.
        context: with the sources.

    Returns:
        Bytes and hashes of the files, with what is known of the item.
    """
    files = tuple(read_whole(context.sources[file.source], file.path, file.size, version=file.version) for file in item.files)
    return RawItem(
        uri=item.uri,
        files=files,
        hashes=tuple(hashlib.sha256(data).hexdigest() for data in files),
        modality=item.modality,
        label=item.label,
        patient=item.patient,
        rules=context.recipe.read,
        num_values=item.num_values,
    )


def _check_reserve(item: Item, samples: list[Sample]) -> list[Sample]:
    """Refuse a volume that became more boxes than its header announced: they would overwrite the next volume's positions."""
    if item.boxes and len(samples) > item.boxes:
        raise SampleError("plan", f"became {len(samples)} boxes; its header announced {item.boxes}")
    return samples


def run_items(task: Task, context: TaskContext) -> Iterator[ItemResult]:
    """Run every item of a task.

    The first item of equal content gets samples, and so does each later one of which more is known; which is kept is decided once
    all are known.

    Args:
        task: of the plan.
        context: what all tasks share.

    Yields:
        The result of each item, in order.
    """
    met: dict[str, Item] = {}
    for item in task.items:
        hashes: list[str] = []
        damaged: list[Quarantined] = []
        decode = partial(decoder_process.decode, item.decoder, stages=context.recipe.decoder_stages)
        steps: list[Step] = [
            ("read", partial(read_raw, context=context)),
            ("read", partial(_note_hashes, hashes=hashes)),
            *context.recipe.steps(partial(_decode, decode=decode, item=item, damaged=damaged)),
            ("plan", partial(_check_reserve, item)),
        ]
        found = apply_steps(item.uri, item, steps, [file.uri for file in item.files])
        num_files = len(item.files)
        instead: Quarantined | Duplicate | None = None
        if isinstance(found, Quarantined):
            instead = replace(found, num_files=num_files)
        elif not knows_more(item, met.get(found[0].origin.sha256)):
            instead = build_duplicate(item, found[0].origin.sha256, num_files)
        else:
            met[found[0].origin.sha256] = item
        read = list(zip(item.files, hashes, strict=False))  # no hashes of an item that could not be read
        yield ItemResult(
            item=item,
            samples=[] if isinstance(found, Quarantined) or instead else found,
            instead=instead,
            left_out=(*find_stored_twice(read), *damaged),
            files=tuple(
                FileRead(source=file.source, path=file.path, size=file.size, version=file.version, sha256=sha256)
                for file, sha256 in read
            ),
        )


def _note_hashes(raw_item: RawItem, hashes: list[str]) -> RawItem:
    """The item itself; the hashes of its files are added to ``hashes``."""
    hashes += raw_item.hashes
    return raw_item


def _decode(raw_item: RawItem, decode: Decoder, item: Item, damaged: list[Quarantined]) -> Sample:
    """The item's sample with the plan's note; ``damaged`` gets rows of files that were left out because a sound copy is there."""
    sample = decode(raw_item)
    left_out: Any = sample.extra.get(LEFT_OUT, [])
    for number, rule, reason in left_out:
        row = Quarantined(uri=item.files[number].uri, stage="decode", rule=rule, reason=f"{reason}; a sound copy is used")
        damaged.append(row)
    published = {name: value for name, value in sample.extra.items() if name != LEFT_OUT}
    return add_note(replace(sample, extra=published, split=item.split), item.note)


def write_images(task: Task, context: TaskContext) -> Marker:
    """Write a task of images as one shard.

    Args:
        task: of the plan.
        context: what all tasks share.

    Returns:
        The marker, which is not written yet.
    """
    made = drop_repeats(list(run_items(task, context)))
    samples = [sample for one in made for sample in one.samples]
    written = []
    if samples:
        path, made_by = shard_path(context.shard_name, task.number), digest(context.recipe.preprocessing())
        packed = pack_shard(samples, path, split=context.split, preprocessing_digest=made_by)
        written.append(put(context.out, packed))
    return _build_marker(task, context, written, made)


def write_volumes(task: Task, context: TaskContext) -> Marker:
    """Write a task of volumes as its shards of the bank; each is written as soon as no later volume can be in it.

    Args:
        task: of the plan.
        context: what all tasks share.

    Returns:
        The marker, which is not written yet.
    """
    recipe = context.recipe
    assert isinstance(recipe, VolumeRecipe)
    per_shard = recipe.patches_per_shard
    waiting: dict[int, Sample] = {}
    written: list[WrittenObject] = []
    done: list[ItemResult] = []
    position = 0
    for made in run_items(task, context):
        waiting.update(enumerate(made.samples, position))
        done.append(replace(made, samples=[]))
        position += made.item.boxes
        while waiting and (min(waiting) // per_shard + 1) * per_shard <= position:
            written.append(_write_shard(waiting, min(waiting) // per_shard, task, context))
    if waiting:
        written.append(_write_shard(waiting, min(waiting) // per_shard, task, context))
    return _build_marker(task, context, written, done)


def _write_shard(waiting: dict[int, Sample], number: int, task: Task, context: TaskContext) -> WrittenObject:
    """Pack and write one shard of the task, and release its samples and bytes."""
    recipe = context.recipe
    assert isinstance(recipe, VolumeRecipe)
    start = number * recipe.patches_per_shard
    samples = {p - start: waiting.pop(p) for p in sorted(waiting) if p < start + recipe.patches_per_shard}
    packed = pack_bank_shard(
        samples,
        task.first_shard + number,
        context.bank_path,
        recipe.layout,
        split=context.split,
        preprocessing_digest=digest(recipe.preprocessing()),
    )
    return put(context.out, packed)


def _build_marker(task: Task, context: TaskContext, written: list[WrittenObject], made: Sequence[ItemResult]) -> Marker:
    return Marker(
        plan=context.plan_digest,
        row=task.number,
        objects=tuple(one.entry for one in written),
        catalog=tuple(catalog for one in written for catalog in one.rows),
        quarantine=tuple(refused for one in made for refused in one.quarantine),
        repeats=tuple(repeat for one in made for repeat in one.repeats),
        used=tuple(used for one in made for used in one.used),
        files=tuple(file for one in made for file in one.files),
    )


def run_task(document: str, context: TaskContext) -> str:
    """Run one task: objects first, marker last, the same bytes however often it is run.

    Args:
        document: the task, as JSON text.
        context: what all tasks share.

    Returns:
        The number of the task, as JSON text.
    """
    task = from_document(Task, json.loads(document), subject="task of a plan")
    marker = write_images(task, context) if isinstance(context.recipe, ImageRecipe) else write_volumes(task, context)
    context.out.put(marker_path(context.plan_digest, task.number), marker.to_bytes(), private=True)  # it holds paths
    return canonical_json({"row": task.number}).decode()
