"""Datasets written with the contract alone, so that training is tested without the pipelines that usually write them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace

import google_crc32c
import numpy as np
import pyarrow.parquet as pq
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.bank import AIR, BLOSC, DTYPE, BankLayout, parse_shard_index
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, build_catalog_row, build_table, drop_checksum
from crossdim.storage_schema.digest import sample_key
from crossdim.storage_schema.manifest import MANIFEST_PATH, FileCounts, Manifest, ObjectEntry
from crossdim.storage_schema.pseudo3d import Pseudo3D, fold, unroll
from crossdim.storage_schema.sample import Origin, Sample, Scaling
from crossdim.storage_schema.shards import build_members, pack_tar
from crossdim.storage_schema.vocabulary import Encoding, Modality, Presentation


def images(count: int, seed: int = 0, classes: int = 2) -> list[Sample]:
    """Stored pseudo-3D samples of noisy discs; the class is the radius."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        height, width = (int(n) * 4 for n in rng.integers(20, 30, 2))
        y, x = np.mgrid[:height, :width]
        centre = rng.uniform(0.4, 0.6, 2) * (height, width)
        kind = number % classes
        disc = np.hypot(y - centre[0], x - centre[1]) < (12 + 14 * kind)
        image = np.clip(60 + 120 * disc + rng.normal(0, 10, (height, width)), 0, 255).astype(np.uint8)
        samples.append(_image(image, number, str(kind)))
    return samples


def _image(image: np.ndarray, number: int, label: str) -> Sample:
    sha256 = hashlib.sha256(image.tobytes()).hexdigest()
    return Sample(
        key=sample_key(sha256, "whole"),
        presentation=Presentation.PSEUDO3D,
        array=unroll(image[None], Pseudo3D()),
        modality=Modality.XR,
        scaling=Scaling(low=0, high=255),
        origin=Origin(uri=f"images/{number}.png", sha256=sha256),
        label=label,
        extra={"image_height": image.shape[0], "image_width": image.shape[1]},
    )


def as_image(sample: Sample) -> Sample:
    """The plain image behind a stored pseudo-3D sample."""
    _, _, rows, columns = sample.array.shape
    image = fold(sample.array, Pseudo3D(), rows * 4, columns * 4)
    return replace(sample, presentation=Presentation.IMAGE, array=image)


def superpatches(count: int, side: int = 64, seed: int = 1) -> list[Sample]:
    """CT-like cubes with a ball whose radius is the class."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:side, :side, :side]
    samples = []
    for number in range(count):
        kind = number % 2
        centre = rng.uniform(0.4, 0.6, 3) * side
        ball = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < (side * (0.15 + 0.15 * kind)) ** 2
        cube = np.clip(900 + 400 * ball + rng.normal(0, 60, ball.shape), 1, 2000).astype(DTYPE)
        sha256 = hashlib.sha256(cube.tobytes()).hexdigest()
        samples.append(
            Sample(
                key=sample_key(sha256, "box=0"),
                presentation=Presentation.SUPERPATCH,
                array=cube[None],
                modality=Modality.CT,
                scaling=Scaling(intercept=-1000, low=-1000, high=1000),
                origin=Origin(uri=f"ct/{number}.nii.gz", sha256=sha256, part="box=0"),
                spacing_mm=(2.0, 2.0, 2.0),
                origin_zyx=(0, 0, 0),
                label=str(kind),
            )
        )
    return samples


def publish(
    bucket: Bucket,
    samples: list[Sample],
    name: str,
    preprocessing: dict[str, object] | None = None,
    splits: Sequence[str] = (),
) -> Manifest:
    """Write samples as one shard object, a catalog, and a manifest; without ``splits`` all are of split train."""
    flat = samples[0].presentation is not Presentation.SUPERPATCH
    default: dict[str, object] = (
        {"pseudo3d": {"window": 4, "stride": 4}} if flat else {"superpatch": {"side": samples[0].array.shape[1]}}
    )
    preprocessing = preprocessing or default
    files = FileCounts(total=len(samples), used=len(samples), quarantined=0, ignored=0)
    manifest = Manifest(
        name=name,
        presentation=samples[0].presentation,
        num_samples=len(samples),
        num_quarantined=0,
        preprocessing=preprocessing,
        plan_digest="0" * 64,
        objects=(),
        files=files,
    )
    data, rows = (_shard if flat else _bank)(samples, manifest.preprocessing_digest)
    rows = [row | {"split": split} for row, split in zip(rows, splits or [row["split"] for row in rows], strict=True)]
    catalog = io.BytesIO()
    pq.write_table(build_table(rows, CATALOG_SCHEMA), catalog)
    objects = {
        rows[0]["object"]: (data, "shard" if flat else "bank"),
        "catalog/part-00000.parquet": (catalog.getvalue(), "catalog"),
    }
    entries = []
    for path, (content, role) in objects.items():
        bucket.put(path, content)
        entries.append(ObjectEntry(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest(), role=role))
    manifest = Manifest(
        name=name,
        presentation=manifest.presentation,
        num_samples=len(samples),
        num_quarantined=0,
        preprocessing=preprocessing,
        plan_digest="0" * 64,
        objects=tuple(entries),
        files=files,
    )
    bucket.put(MANIFEST_PATH, manifest.to_bytes())
    return manifest


def _row(
    sample: Sample, path: str, offset: int, data: bytes, encoding: Encoding, position: int | None, digest: str
) -> dict[str, object]:
    return build_catalog_row(
        sample,
        path=path,
        offset=offset,
        length=len(data),
        crc32c=google_crc32c.value(drop_checksum(data, encoding)),
        encoding=encoding,
        position=position,
        split="train",
        preprocessing_digest=digest,
    )


def _shard(samples: list[Sample], digest: str) -> tuple[bytes, list[dict[str, object]]]:
    path = "images/test-000000.tar"
    data, extents = pack_tar([member for sample in samples for member in build_members(sample)])
    arrays = [e for e in extents if e.name.endswith(".npy")]
    pairs = zip(samples, arrays, strict=True)
    return data, [_row(s, path, e.offset, data[e.offset : e.offset + e.length], Encoding.NPY, None, digest) for s, e in pairs]


def _bank(samples: list[Sample], digest: str) -> tuple[bytes, list[dict[str, object]]]:
    layout = BankLayout(side=samples[0].array.shape[1], patches_per_shard=len(samples))
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=layout.array_shape(1),
        chunks=layout.chunk_shape,
        shards=layout.shard_shape,
        dtype=DTYPE,
        fill_value=AIR,
        compressors=[BloscCodec(**BLOSC), Crc32cCodec()],
        zarr_format=3,
    )
    array[:] = np.concatenate([sample.array for sample in samples])
    data = store._store_dict[layout.shard_object(0)].to_bytes()
    path = "superpatches/test-2mm.zarr/" + layout.shard_object(0)
    extents = parse_shard_index(data, len(samples))
    return data, [
        _row(s, path, e.offset, data[e.offset : e.offset + e.length], Encoding.ZARR_CHUNK, n, digest)
        for n, (s, e) in enumerate(zip(samples, extents, strict=True))
    ]
