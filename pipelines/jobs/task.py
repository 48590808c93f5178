"""One row: its inputs read, decoded, changed, packed and written, and a marker that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import from_document
from crossdim.pipelines import decoder_process
from crossdim.pipelines.duplicates import Repeat
from crossdim.pipelines.jobs.plan import Item, ItemFile, Row
from crossdim.pipelines.jobs.recipe import ImageRecipe, Recipe, VolumeRecipe
from crossdim.pipelines.markers import FileRead, Marker, Used, marker_path
from crossdim.pipelines.publish import Written, put
from crossdim.pipelines.quarantine import Quarantined, Step, through
from crossdim.pipelines.readers.raw import RawItem
from crossdim.pipelines.sinks.bank import pack_bank_shard
from crossdim.pipelines.sinks.shards import pack_shard
from crossdim.pipelines.sources.reading import read_whole
from crossdim.storage_schema.bank import bank_path
from crossdim.storage_schema.digest import canonical_json, digest
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.shards import shard_path
from crossdim.storage_schema.split import SplitRule


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
    files = tuple(read_whole(job.sources[file.source], file.path, file.size, version=file.version) for file in item.files)
    return RawItem(
        uri=item.uri,
        files=files,
        hashes=tuple(hashlib.sha256(data).hexdigest() for data in files),
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What became of one item.

    Attributes:
        item: the input.
        samples: made of it; none if it was refused or repeats another.
        instead: why there are none.
        left_out: its files whose content another of its files has: decoders take one of them.
        files: as they were read; none if one of them could not be.
    """

    item: Item
    samples: list[Sample]
    instead: Quarantined | Repeat | None
    left_out: tuple[Quarantined, ...]
    files: tuple[FileRead, ...]

    @property
    def quarantine(self) -> tuple[Quarantined, ...]:
        """Its quarantine rows: one of the whole item, or one of each file that is left out."""
        if self.instead:
            return (self.instead,) if isinstance(self.instead, Quarantined) else ()
        return self.left_out

    @property
    def repeats(self) -> tuple[Repeat, ...]:
        """The item, if it repeats another of its row."""
        return (self.instead,) if isinstance(self.instead, Repeat) else ()

    @property
    def used(self) -> tuple[Used, ...]:
        """The item, if samples were made of it."""
        return () if self.instead else (Used(uri=self.item.uri, num_files=len(self.item.files) - len(self.left_out)),)


def made_of(row: Row, job: Job) -> Iterator[Made]:
    """What becomes of every item of a row."""
    met: set[str] = set()
    for item in row.items:
        hashes: list[str] = []
        steps: list[Step] = [
            ("read", partial(raw, job=job)),
            ("read", partial(_note_hashes, hashes=hashes)),
            *job.recipe.steps(partial(decoder_process.decode, item.decoder, stages=job.recipe.decoder_stages)),
            ("plan", partial(_within_reserve, item)),
        ]
        found = through(item.uri, item, steps, [file.uri for file in item.files])
        num_files = len(item.files)
        instead: Quarantined | Repeat | None = None
        if isinstance(found, Quarantined):
            instead = replace(found, num_files=num_files)
        elif found[0].origin.sha256 in met:
            instead = Repeat(uri=item.uri, sha256=found[0].origin.sha256, label=item.label, num_files=num_files)
        else:
            met.add(found[0].origin.sha256)
        read = list(zip(item.files, hashes, strict=False))  # no hashes of an item that could not be read
        yield Made(
            item=item,
            samples=[] if isinstance(found, Quarantined) or instead else found,
            instead=instead,
            left_out=tuple(_stored_twice(read)),
            files=tuple(
                FileRead(source=file.source, path=file.path, size=file.size, version=file.version, sha256=sha256)
                for file, sha256 in read
            ),
        )


def _note_hashes(raw_item: RawItem, hashes: list[str]) -> RawItem:
    """The item itself; the hashes of its files are added to ``hashes``."""
    hashes += raw_item.hashes
    return raw_item


def _stored_twice(read: Sequence[tuple[ItemFile, str]]) -> Iterator[Quarantined]:
    """The quarantine rows of files that another file of the same series equals."""
    first: dict[str, ItemFile] = {}
    for file, sha256 in read:
        kept = first.setdefault(sha256, file)
        if kept is not file:
            reason = f"has the same content as {kept.uri} of the same series, which is kept"
            yield Quarantined(uri=file.uri, stage="read", rule="duplicate", reason=reason)


def write_images(row: Row, job: Job) -> Marker:
    """A row of images as one shard."""
    made = list(made_of(row, job))
    samples = [sample for one in made for sample in one.samples]
    written = []
    if samples:
        path, made_by = shard_path(job.name, row.number), digest(job.recipe.preprocessing())
        packed = pack_shard(samples, path, split=job.split, preprocessing_digest=made_by)
        written.append(put(job.out, packed))
    return _marker(row, job, written, made)


def write_volumes(row: Row, job: Job) -> Marker:
    """A row of volumes as its shards of the bank; each is written as soon as no later volume can reach it."""
    recipe = job.recipe
    assert isinstance(recipe, VolumeRecipe)
    per_shard = recipe.patches_per_shard
    waiting: dict[int, Sample] = {}
    written: list[Written] = []
    done: list[Made] = []
    position = 0
    for made in made_of(row, job):
        waiting.update(enumerate(made.samples, position))
        done.append(replace(made, samples=[]))
        position += made.item.boxes
        while waiting and (min(waiting) // per_shard + 1) * per_shard <= position:
            written.append(_write_shard(waiting, min(waiting) // per_shard, row, job))
    if waiting:
        written.append(_write_shard(waiting, min(waiting) // per_shard, row, job))
    return _marker(row, job, written, done)


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


def _marker(row: Row, job: Job, written: list[Written], made: Sequence[Made]) -> Marker:
    return Marker(
        plan=job.plan_digest,
        row=row.number,
        objects=tuple(one.entry for one in written),
        catalog=tuple(catalog for one in written for catalog in one.rows),
        quarantine=tuple(refused for one in made for refused in one.quarantine),
        repeats=tuple(repeat for one in made for repeat in one.repeats),
        used=tuple(used for one in made for used in one.used),
        files=tuple(file for one in made for file in one.files),
    )


def run_row(document: str, job: Job) -> str:
    """The task of one row: objects first, marker last, both the same however often it is run."""
    row = from_document(Row, json.loads(document), subject="row of a plan")
    marker = write_images(row, job) if isinstance(job.recipe, ImageRecipe) else write_volumes(row, job)
    job.out.put(marker_path(job.plan_digest, row.number), marker.to_bytes(), private=True)  # it holds paths
    return canonical_json({"row": row.number}).decode()
