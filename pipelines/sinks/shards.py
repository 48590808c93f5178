"""Images and pseudo-3D samples to WebDataset shards."""

from __future__ import annotations

from collections.abc import Sequence

import google_crc32c

from crossdim.pipelines.sinks.packed import PackedObject
from crossdim.storage_schema.catalog import build_catalog_row
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.shards import build_members, pack_tar
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import ARRAY_SUFFIX, Encoding


def pack_shard(samples: Sequence[Sample], path: str, *, split: SplitRule, preprocessing_digest: str) -> PackedObject:
    """Pack all samples into one tar, sorted by key; the catalog's ranges are those of the ``.npy`` members.

    Args:
        samples: with keys that differ.
        path: of the shard inside the dataset.
        split: which samples are held out.
        preprocessing_digest: of the recipe that made the samples.

    Returns:
        Path, bytes and catalog rows of the object.
    """
    ordered = sorted(samples, key=lambda sample: sample.key)
    data, extents = pack_tar([member for sample in ordered for member in build_members(sample)])
    arrays = [extent for extent in extents if extent.name.endswith(f".{ARRAY_SUFFIX}")]
    rows = tuple(
        build_catalog_row(
            sample,
            path=path,
            offset=extent.offset,
            length=extent.length,
            crc32c=google_crc32c.value(data[extent.offset : extent.offset + extent.length]),
            encoding=Encoding.NPY,
            position=None,
            split=split.part_of(sample),
            preprocessing_digest=preprocessing_digest,
        )
        for sample, extent in zip(ordered, arrays, strict=True)
    )
    return PackedObject(path=path, role="shard", data=data, rows=rows)
