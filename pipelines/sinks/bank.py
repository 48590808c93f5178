"""Superpatches to the bank: zarr-python encodes one shard in memory, and its bytes are one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer.core import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from crossdim.pipelines.sinks.packed import PackedObject
from crossdim.storage_schema.bank import AIR, BLOSC, DIMENSION_NAMES, DTYPE, BankLayout, parse_shard_index
from crossdim.storage_schema.catalog import build_catalog_row, drop_checksum
from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.sample import Array, Sample
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Encoding

#: Name of the document that makes a folder a Zarr array.
ZARR_DOCUMENT = "zarr.json"


def _build_blosc() -> BloscCodec:
    settings: dict[str, Any] = {**BLOSC, "typesize": DTYPE.itemsize, "blocksize": 0}
    return BloscCodec.from_dict({"name": "blosc", "configuration": settings})


def _create(layout: BankLayout, num_shards: int) -> tuple[zarr.Array[Any], MemoryStore]:
    blosc.use_threads = False  # one thread, one block order: the same bytes on every machine
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=layout.array_shape(num_shards),
        chunks=layout.chunk_shape,
        shards=layout.shard_shape,
        dtype=DTYPE,
        compressors=[_build_blosc(), Crc32cCodec()],
        fill_value=AIR,
        dimension_names=DIMENSION_NAMES,
    )
    return array, store


def _read_object(store: MemoryStore, name: str) -> bytes:
    buffer = sync(store.get(name, default_buffer_prototype()))
    assert buffer is not None, name
    return buffer.to_bytes()


def build_bank_document(layout: BankLayout, num_shards: int) -> bytes:
    """Build the ``zarr.json`` of a bank.

    Args:
        layout: shapes of the bank.
        num_shards: number of objects that the bank has space for.

    Returns:
        The bytes of the document.
    """
    return _read_object(_create(layout, num_shards)[1], ZARR_DOCUMENT)


def encode_shard(boxes: Mapping[int, Array], layout: BankLayout) -> bytes:
    """Encode the object of one shard.

    Args:
        boxes: (S, S, S) int16 by position inside the shard; positions not named stay absent. No box may be all air, which
            Zarr stores as absent.
        layout: shapes.

    Returns:
        The bytes of the object, with the index at its end.
    """
    array, store = _create(layout, 1)
    filled = np.full(layout.shard_shape, AIR, DTYPE)
    for position, box in boxes.items():
        filled[position] = box
    array[...] = filled
    return _read_object(store, BankLayout.shard_object(0))


def pack_bank_shard(
    samples: Mapping[int, Sample], number: int, path: str, layout: BankLayout, *, split: SplitRule, preprocessing_digest: str
) -> PackedObject:
    """Pack one shard of a bank, with its samples' catalog rows in order of position.

    Args:
        samples: (1, S, S, S) int16 by position inside the shard.
        number: of the shard in the bank.
        path: of the bank inside the dataset.
        layout: shapes.
        split: which samples are held out.
        preprocessing_digest: of the recipe that made the samples.

    Returns:
        Path, bytes and catalog rows of the object.

    Raises:
        GeometryError: if a sample is all air, which has no bytes in a bank.
    """
    for sample in samples.values():
        if not sample.array.any():
            raise GeometryError(f"superpatch {sample.key} is all air and has no bytes in the bank")
    data = encode_shard({position: sample.array[0] for position, sample in samples.items()}, layout)
    extents = parse_shard_index(data, layout.patches_per_shard)
    name = f"{path}/{BankLayout.shard_object(number)}"
    rows = []
    for position, sample in sorted(samples.items()):
        extent = extents[position]
        assert extent is not None, sample.key
        chunk = data[extent.offset : extent.offset + extent.length]
        rows.append(
            build_catalog_row(
                sample,
                path=name,
                offset=extent.offset,
                length=extent.length,
                crc32c=google_crc32c.value(drop_checksum(chunk, Encoding.ZARR_CHUNK)),
                encoding=Encoding.ZARR_CHUNK,
                position=number * layout.patches_per_shard + position,
                split=split.part_of(sample),
                preprocessing_digest=preprocessing_digest,
            )
        )
    return PackedObject(path=name, role="bank", data=data, rows=tuple(rows))
