"""One row: its inputs read, decoded, changed, packed and written, and a marker that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from foundation.bucket import Bucket
from foundation.settings import from_document
from pipelines import decoder_process
from pipelines.decoders.raw import RawItem
from pipelines.jobs.plan import Item, Row
from pipelines.jobs.recipe import ImageRecipe, Recipe, VolumeRecipe
from pipelines.publish import Marker, Written, marker_path, put
from pipelines.quarantine import Quarantined, Step, through
from pipelines.repeats import Repeat
from pipelines.sinks.bank import pack_bank_shard
from pipelines.sinks.shards import pack_shard
from pipelines.sources.reading import read_whole
from storage_schema.bank import bank_path
from storage_schema.digest import canonical_json, digest
from storage_schema.errors import SampleError
from storage_schema.sample import Sample
from storage_schema.shards import shard_path
from storage_schema.split import SplitRule


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What all rows of a run share. A value: it travels to every task."""

    sources: tuple[Bucket, ...]
    out: Bucket
    recipe: Recipe
    name: str
    split: SplitRule
    plan_digest: str

    @property
    def bank_path(self) -> str:
        """Path of the bank of a volume dataset."""
        assert isinstance(self.recipe, VolumeRecipe)
        return bank_path(self.name, f"{self.recipe.resample.spacing_mm:g}mm")


def raw(item: Item, job: Job) -> RawItem:
    """The bytes of an item, and what is known of it."""
    return RawItem(
        uri=item.uri,
        files=tuple(read_whole(job.sources[file.source], file.path, file.size) for file in item.files),
        modality=item.modality,
        label=item.label,
        patient=item.patient,
        rules=job.recipe.read,
        num_values=item.num_values,
    )


def _within_reserve(item: Item, samples: list[Sample]) -> list[Sample]:
    """Refuse a volume that became more boxes than its header announced: they would land on its neighbour's positions."""
    if item.boxes and len(samples) > item.boxes:
        raise SampleError("plan", f"became {len(samples)} boxes; its header announced {item.boxes}")
    return samples


def samples_of(row: Row, job: Job) -> Iterator[tuple[Item, list[Sample] | Quarantined | Repeat]]:
    """Every item of a row with its samples, or with the reason why it has none."""
    met: set[str] = set()
    for item in row.items:
        steps: list[Step] = [
            ("read", partial(raw, job=job)),
            *job.recipe.steps(partial(decoder_process.decode, item.decoder)),
            ("plan", partial(_within_reserve, item)),
        ]
        made = through(item.uri, item, steps, [file.uri for file in item.files])
        num_files = len(item.files)
        if isinstance(made, Quarantined):
            yield item, replace(made, num_files=num_files)
        elif made[0].origin.sha256 in met:
            yield item, Repeat(uri=item.uri, sha256=made[0].origin.sha256, label=item.label, num_files=num_files)
        else:
            met.add(made[0].origin.sha256)
            yield item, made


def write_images(row: Row, job: Job) -> Marker:
    """A row of images as one shard."""
    made = list(samples_of(row, job))
    samples = [sample for _, found in made if isinstance(found, list) for sample in found]
    written = []
    if samples:
        path, made_by = shard_path(job.name, row.number), digest(job.recipe.preprocessing())
        packed = pack_shard(samples, path, split=job.split, preprocessing_digest=made_by)
        written.append(put(job.out, packed))
    return _marker(row, written, [found for _, found in made if not isinstance(found, list)])


def write_volumes(row: Row, job: Job) -> Marker:
    """A row of volumes as its shards of the bank; each is written as soon as no later volume can reach it."""
    recipe = job.recipe
    assert isinstance(recipe, VolumeRecipe)
    per_shard = recipe.patches_per_shard
    waiting: dict[int, Sample] = {}
    written: list[Written] = []
    without: list[Quarantined | Repeat] = []
    position = 0
    for item, made in samples_of(row, job):
        if isinstance(made, list):
            waiting.update(enumerate(made, position))
        else:
            without.append(made)
        position += item.boxes
        while waiting and (min(waiting) // per_shard + 1) * per_shard <= position:
            written.append(_write_shard(waiting, min(waiting) // per_shard, row, job))
    if waiting:
        written.append(_write_shard(waiting, min(waiting) // per_shard, row, job))
    return _marker(row, written, without)


def _write_shard(waiting: dict[int, Sample], number: int, row: Row, job: Job) -> Written:
    """Pack and write one shard of the row's, and let go of its samples and bytes."""
    recipe = job.recipe
    assert isinstance(recipe, VolumeRecipe)
    start = number * recipe.patches_per_shard
    samples = {p - start: waiting.pop(p) for p in sorted(waiting) if p < start + recipe.patches_per_shard}
    packed = pack_bank_shard(
        samples,
        row.first_shard + number,
        job.bank_path,
        recipe.layout,
        split=job.split,
        preprocessing_digest=digest(recipe.preprocessing()),
    )
    return put(job.out, packed)


def _marker(row: Row, written: list[Written], without: list[Quarantined | Repeat]) -> Marker:
    return Marker(
        row=row.number,
        objects=tuple(one.entry for one in written),
        catalog=tuple(catalog for one in written for catalog in one.rows),
        quarantine=tuple(one for one in without if isinstance(one, Quarantined)),
        repeats=tuple(one for one in without if isinstance(one, Repeat)),
    )


def run_row(document: str, job: Job) -> str:
    """The task of one row: objects first, marker last, both the same however often it is run."""
    row = from_document(Row, json.loads(document), subject="row of a plan")
    marker = write_images(row, job) if isinstance(job.recipe, ImageRecipe) else write_volumes(row, job)
    job.out.put(marker_path(job.plan_digest, row.number), marker.to_bytes())
    refused = len(marker.quarantine) + len(marker.repeats)
    told = {"row": row.number, "samples": len(marker.catalog), "quarantined": refused}
    return canonical_json(told).decode()
