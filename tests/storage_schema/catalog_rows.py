"""A small manifest and valid catalog rows, for tests of tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crossdim.storage_schema.catalog import build_catalog_row
from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.manifest import FileCounts, Manifest, ObjectEntry
from crossdim.storage_schema.shards import encode_npy
from crossdim.storage_schema.vocabulary import Encoding, Presentation
from tests.strategies import sample

SHARD, BANK = "images/a.tar", "superpatches/a.zarr/c/0/0/0"


def manifest(presentation: Presentation, num_samples: int = 3) -> Manifest:
    flat = presentation is not Presentation.SUPERPATCH
    path, role = (SHARD, "shard") if flat else (BANK, "bank")
    return Manifest(
        name="a",
        presentation=presentation,
        num_samples=num_samples,
        num_quarantined=0,
        preprocessing={},
        plan_digest="0" * 64,
        objects=(
            ObjectEntry(path=path, size=100_000, sha256="1" * 64, role=role),
            ObjectEntry(path="catalog/a.parquet", size=2**70, sha256="1" * 64, role="catalog"),
        ),
        files=FileCounts(total=3, used=3, quarantined=0, ignored=0),
    )


ARRAYS = {
    Presentation.IMAGE: np.zeros((1, 8, 12), np.uint16),
    Presentation.PSEUDO3D: np.zeros((1, 16, 2, 3), np.uint8),
    Presentation.SUPERPATCH: np.zeros((1, 4, 4, 4), np.int16),
}


def rows(presentation: Presentation) -> list[dict[str, object]]:
    """Three sound rows."""
    flat = presentation is not Presentation.SUPERPATCH
    array = ARRAYS[presentation]
    found = sample(array, presentation, extra={} if flat else {"volume_shape": [8, 8, 8]}, origin_zyx=None if flat else (4, 0, 0))
    return [
        build_catalog_row(
            replace(found, key=sample_key("ab" * 32, str(number))),
            path=SHARD if flat else BANK,
            offset=1000 * number,
            length=len(encode_npy(array)) if flat else 60,
            crc32c=7,
            encoding=Encoding.NPY if flat else Encoding.ZARR_CHUNK,
            position=None if flat else number,
            split="train",
            preprocessing_digest=manifest(presentation).preprocessing_digest,
        )
        for number in range(3)
    ]
