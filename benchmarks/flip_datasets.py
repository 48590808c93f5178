"""Published datasets in which bits are flipped: every presentation and version 1, small, as training and verify read them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.flip_outcome import Outcome, Target, expect
from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.check import run_check
from crossdim.pipelines.jobs.verify import check_tables
from crossdim.pipelines.publish import build_table_objects
from crossdim.pipelines.sinks.bank import ZARR_DOCUMENT, build_bank_document, pack_bank_shard
from crossdim.pipelines.sinks.packed import PackedObject
from crossdim.pipelines.sinks.shards import pack_shard
from crossdim.storage_schema.bank import BankLayout
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, IGNORED_SCHEMA, QUARANTINE_SCHEMA
from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.errors import CrossdimError, DocumentError, StorageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, FileCounts, Manifest
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.dataset import open_dataset, read_sample
from crossdim.training.data.range_reader import open_range_reader
from tests.training.published import as_image, images, superpatches

VERSION_1 = Path(__file__).parents[1] / "tests" / "golden" / "version_1"


def publish(bucket: Bucket, samples: Sequence[Sample]) -> None:
    """Publish samples as the pipeline does, with a row in quarantine and one among the ignored."""
    flat = samples[0].presentation is not Presentation.SUPERPATCH
    side = samples[0].array.shape[-1]
    preprocessing: dict[str, object] = {"pseudo3d": {"window": 4, "stride": 4}} if flat else {"superpatch": {"side": side}}
    refused = {"uri": "raw/a.dcm", "stage": "decode", "rule": "truncated", "reason": "ends after 7 bytes", "num_files": 1}
    ignored = {"uri": "raw/.DS_Store", "format": "unknown", "rule": "hidden", "reason": "its name begins with a dot"}
    packed = [*_pack_samples(samples, digest(preprocessing))]
    packed += build_table_objects("catalog", [row for one in packed for row in one.rows], CATALOG_SCHEMA)
    packed += build_table_objects("quarantine", [refused], QUARANTINE_SCHEMA) + build_table_objects(
        "ignored", [ignored], IGNORED_SCHEMA
    )
    for one in packed:
        bucket.put(one.path, one.data)
    manifest = Manifest(
        name="flipped",
        presentation=Presentation(str(samples[0].presentation)),
        num_samples=len(samples),
        num_quarantined=1,
        preprocessing=preprocessing,
        plan_digest="0" * 64,
        objects=tuple(one.entry() for one in packed),
        files=FileCounts(total=len(samples) + 2, used=len(samples), quarantined=1, ignored=1),
    )
    bucket.put(MANIFEST_PATH, manifest.to_bytes())


def _pack_samples(samples: Sequence[Sample], preprocessing: str) -> Iterator[PackedObject]:
    if samples[0].presentation is not Presentation.SUPERPATCH:
        yield pack_shard(samples, "images/a-000000.tar", split=SplitRule(), preprocessing_digest=preprocessing)
        return
    layout, path = BankLayout(side=samples[0].array.shape[-1], patches_per_shard=len(samples)), "superpatches/a-2mm.zarr"
    boxes = dict(enumerate(samples))
    yield pack_bank_shard(boxes, 0, path, layout, split=SplitRule(), preprocessing_digest=preprocessing)
    yield PackedObject(path=f"{path}/{ZARR_DOCUMENT}", role="bank", data=build_bank_document(layout, 1), rows=())


def samples_of(bucket: Bucket) -> list[Sample]:
    """Every sample of a dataset as training reads it."""
    dataset, reader = open_dataset(bucket, split=None), open_range_reader(bucket)
    return [read_sample(dataset, index, reader) for index in range(len(dataset))]


def look_at_dataset(bucket: Bucket, written: Sequence[Sample]) -> Outcome:
    """Through training's reader and through verify."""
    try:
        reported = _passes_verify(bucket)
    except (DocumentError, StorageError):
        reported = True
    try:
        found = samples_of(bucket)
    except CrossdimError:
        expect(reported, "training refuses what verify finds whole")
        return Outcome(kind="refused", how="training and verify")
    expect(len(found) == len(written), "another number of samples")
    for one, other in zip(found, written, strict=True):
        expect(one.array.tobytes() == other.array.tobytes() and one.array.dtype == other.array.dtype, f"array of {one.key}")
        expect(replace(one, array=other.array) == other, f"meaning of {one.key}")
    if reported:
        return Outcome(kind="refused", how="verify; training does not read it, and all its values are equal")
    return Outcome(
        kind="harmless", how="a name, a plan's digest or another spelling of a number: all samples are equal, bit for bit"
    )


def _passes_verify(bucket: Bucket) -> bool:
    tables = check_tables(bucket)
    return bool(tables.problems) or any(run_check(task, bucket) != "[]" for task in tables.tasks)


def dataset_targets(folder: Path) -> list[Target]:
    """Datasets of the three presentations, and one of format version 1."""
    made = {"image": [as_image(one) for one in images(3)], "pseudo3d": images(3), "superpatch": superpatches(3, side=16)}
    targets = []
    for name, samples in made.items():
        bucket = Bucket(str(folder / name))
        publish(bucket, samples)
        targets += _targets_of(bucket, name)
    shutil.copytree(VERSION_1 / "xr", folder / "version_1")
    return targets + _targets_of(Bucket(str(folder / "version_1")), "version 1")


def _targets_of(bucket: Bucket, name: str) -> list[Target]:
    written = samples_of(bucket)
    by_kind: dict[str, list[str]] = {}
    for stored in bucket.list_objects():
        folder, _, rest = stored.path.partition("/")
        kind = {"images": "tar shard", "superpatches": ZARR_DOCUMENT if rest.endswith(ZARR_DOCUMENT) else "bank shard"}
        by_kind.setdefault(kind.get(folder, folder), []).append(stored.path)
    return [
        Target(kind=f"{name}: {kind}", bucket=bucket, paths=tuple(paths), look=lambda _: look_at_dataset(bucket, written))
        for kind, paths in by_kind.items()
    ]
