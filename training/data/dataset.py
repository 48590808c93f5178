"""A published dataset as training reads it: its manifest, its catalog, and the decoding and checking of samples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import google_crc32c
import numcodecs.blosc
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import format_location, hide_secrets
from crossdim.foundation.manifest_file import read_manifest
from crossdim.foundation.settings import from_document
from crossdim.storage_schema.bank import extract_blosc_frame
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, drop_checksum
from crossdim.storage_schema.contract import join_catalog
from crossdim.storage_schema.errors import GeometryError, RunError, StorageError
from crossdim.storage_schema.manifest import MANIFEST_PATH, Manifest
from crossdim.storage_schema.pseudo3d import Pseudo3D, find_recorded_settings
from crossdim.storage_schema.sample import Array, Origin, Sample, Scaling
from crossdim.storage_schema.shards import decode_npy
from crossdim.storage_schema.tables import parse_published_table
from crossdim.storage_schema.vocabulary import Encoding, Modality, Presentation, Split
from crossdim.training.data.range_reader import RangeReader

#: Receives a message.
Report = Callable[[str], None]
_LOG = logging.getLogger(__name__)

# One thread per sample and many samples at once is faster than many threads per sample.
numcodecs.blosc.use_threads = False


#: Columns that a sample is made from; the others are for people and for evaluation.
READ_COLUMNS = (
    *("key", "presentation", "object", "offset", "length", "crc32c", "encoding", "shape", "dtype"),
    *("slope", "intercept", "unit_low", "unit_high", "modality", "source_uri", "source_sha256", "part", "label"),
)


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """The samples of one split of a published dataset, in catalog order.

    Attributes:
        bucket: where it is stored.
        manifest: of the dataset.
        table: the rows of the catalog that belong to the split.
        alias: what it is called beside another dataset of the same name; empty for its own name.
    """

    bucket: Bucket
    manifest: Manifest
    table: pa.Table
    alias: str = ""

    @property
    def name(self) -> str:
        """What it is called for people."""
        return self.alias or self.manifest.name

    def select(self, split: Split) -> PublishedDataset:
        """The samples of one split."""
        return replace(self, table=self.table.filter(pc.equal(self.table["split"], split.value)))

    def row(self, index: int) -> dict[str, Any]:
        """The columns of one row of the catalog that are needed to read its sample, as Python values."""
        return {name: column[index].as_py() for name, column in self._columns.items()}

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        # One array each, so that indexing is a lookup and not a search through chunks.
        return {name: self.table[name].combine_chunks() for name in READ_COLUMNS}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def pseudo3d(self) -> Pseudo3D | None:
        """Geometry of the stored pseudo-3D view; None for superpatches."""
        settings = find_recorded_settings(self.manifest.preprocessing)
        if settings is None:
            return None
        return from_document(Pseudo3D, settings, subject=f"{self.bucket.where(MANIFEST_PATH)}: preprocessing.pseudo3d")

    def column(self, name: str) -> list[object]:
        """One column of the catalog as Python values."""
        values: list[object] = self.table[name].to_pylist()
        return values


def open_dataset(
    bucket: Bucket, split: Split | None = Split.TRAIN, *, version: int | None = None, prefer_digest: str | None = None
) -> PublishedDataset:
    """Read the manifest and the catalog of a dataset.

    Args:
        bucket: the dataset.
        split: which samples to take; None takes all.
        version: of the dataset; None for the newest.
        prefer_digest: of the manifest of the version that is opened where it is still there, as by a run that began with it.

    Returns:
        The dataset, with its catalog in memory.

    Raises:
        UsageError: if there is no such version.
        StorageError: if nothing is published there, or a part of the catalog does not have the size and sha256 in the manifest.
        DocumentError: if the manifest or the catalog violates the format.
        RunError: if the split holds no sample.
    """
    manifest = read_manifest(bucket, version, prefer_digest=prefer_digest)
    parts = [
        parse_published_table(bucket.read(e.path), e, CATALOG_SCHEMA, bucket.where(e.path), version=manifest.version)
        for e in manifest.with_role("catalog")
    ]
    table = join_catalog(parts or [CATALOG_SCHEMA.empty_table()], manifest, bucket.where("catalog"))
    dataset = PublishedDataset(bucket=bucket, manifest=manifest, table=table)
    if split is not None:
        dataset = dataset.select(split)
    if not len(dataset):
        raise RunError(f"{bucket.where('')} holds no sample of split {split}; its manifest counts {manifest.num_samples} in all")
    dataset.pseudo3d  # noqa: B018  # refused here, and not in a thread that draws views
    return dataset


def tell_apart(datasets: Sequence[PublishedDataset]) -> list[PublishedDataset]:
    """Call datasets that have the name of another one by their places, too: the default name is that of the recipe."""
    numbers = Counter(dataset.manifest.name for dataset in datasets)
    return [
        replace(dataset, alias=f"{dataset.manifest.name} in {format_location(hide_secrets(dataset.bucket.url))}")
        if numbers[dataset.manifest.name] > 1
        else dataset
        for dataset in datasets
    ]


def _decode(data: bytes, encoding: Encoding, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    if encoding is Encoding.NPY:
        return decode_npy(data, shape, dtype)
    decoded = numcodecs.blosc.decompress(extract_blosc_frame(data, shape, dtype))
    return np.frombuffer(decoded, dtype).reshape(shape)


def _read_checked(row: dict[str, Any], reader: RangeReader, place: str, reread: Report) -> bytes:
    """The bytes of a row; read a second time if their crc32c is not the published one."""
    found = []
    for _ in range(2):
        data = reader.get(row["object"], row["offset"], row["length"])
        found.append(google_crc32c.value(drop_checksum(data, Encoding(row["encoding"]))))
        if found[-1] == row["crc32c"]:
            break
    else:
        once, again = (f"{value:08x}" for value in found)
        raise StorageError(
            f"{place}: read twice, crc32c is {once} and {again}, published {row['crc32c']:08x}; run crossdim verify, "
            "and restore the object"
        )
    if len(found) > 1:
        reread(f"{place}: crc32c was {found[0]:08x}, and {found[1]:08x} as published when it was read once more")
    return data


def read_sample(dataset: PublishedDataset, index: int, reader: RangeReader, reread: Report = _LOG.warning) -> Sample:
    """Read one sample with one range request, check its crc32c and decode it.

    Columns of the catalog that are not in ``READ_COLUMNS``, such as the patient, are not part of the sample.

    Args:
        dataset: that holds it.
        index: its row in the catalog.
        reader: of the dataset.
        reread: called with a message if the first read had a wrong crc32c and the second the right one: a network or a cache
            that changes bytes should be known of even if nothing is lost.

    Returns:
        The sample, its array (C, H, W) or (C, D, H, W) in stored values.

    Raises:
        StorageError: if the store fails, or the bytes differ from those published twice in a row.
    """
    row = dataset.row(index)
    place = f"{dataset.bucket.where(row['object'])} bytes {row['offset']}+{row['length']} (sample {row['key']})"
    data = _read_checked(row, reader, place, reread)
    try:
        array = _decode(data, Encoding(row["encoding"]), tuple(row["shape"]), np.dtype(row["dtype"]))
    except (GeometryError, RuntimeError, ValueError) as error:
        raise StorageError(f"{place}: {error}; run crossdim verify, and prepare the dataset again") from error
    return Sample(
        key=row["key"],
        presentation=Presentation(row["presentation"]),
        array=array,
        modality=Modality(row["modality"]),
        scaling=Scaling(slope=row["slope"], intercept=row["intercept"], low=row["unit_low"], high=row["unit_high"]),
        origin=Origin(uri=row["source_uri"], sha256=row["source_sha256"], part=row["part"]),
        label=row["label"],
    )
