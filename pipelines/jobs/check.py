"""Check one published object against its manifest entry, its catalog rows, and the standard libraries that read its format."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence

import numpy as np
import zarr
from webdataset.handlers import reraise_exception
from webdataset.tariterators import group_by_keys, tar_file_expander
from zarr.core.buffer.core import default_buffer_prototype
from zarr.storage import MemoryStore

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.rows import CatalogRow, check_row
from crossdim.pipelines.sinks.bank import ZARR_DOCUMENT
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import Problem, StorageError
from crossdim.storage_schema.manifest import ObjectEntry
from crossdim.storage_schema.sample import Array
from crossdim.storage_schema.vocabulary import ARRAY_SUFFIX

#: What tar, .npy and Zarr readers raise at bytes that are published and yet not theirs. Bytes that are not those which were
#: published are not shown to them: a native decoder may do anything with such.
FOREIGN_ERRORS = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, MemoryError),
    *(RuntimeError, OSError, EOFError, tarfile.TarError),
)


def read_with_webdataset(data: bytes) -> dict[str, Array]:
    """Arrays of a shard by key, as the webdataset library reads them."""
    source = [{"url": "shard.tar", "stream": io.BytesIO(data)}]
    samples = group_by_keys(tar_file_expander(source, handler=reraise_exception))
    return {sample["__key__"]: np.load(io.BytesIO(sample[ARRAY_SUFFIX]), allow_pickle=False) for sample in samples}


def read_with_zarr(document: bytes, shard_path: str, data: bytes, rows: Sequence[CatalogRow]) -> dict[str, Array]:
    """Read the superpatches of one shard with zarr-python, which opens the whole array.

    Args:
        document: the bank's ``zarr.json``.
        shard_path: of the object, inside the dataset.
        data: all bytes of the object.
        rows: of the samples in it.

    Returns:
        Arrays (1, S, S, S) by key.
    """
    buffer = default_buffer_prototype().buffer
    inside = shard_path[shard_path.index(".zarr/") + len(".zarr/") :]
    store = MemoryStore({ZARR_DOCUMENT: buffer.from_bytes(document), inside: buffer.from_bytes(data)})
    array = zarr.open_array(store, mode="r")
    return {row["key"]: np.asarray(array[row["position"]])[None] for row in rows}


def document_path(path: str) -> str:
    """Path of the ``zarr.json`` of the bank that an object is in; empty for any other object."""
    bank, inside, _ = path.partition(".zarr/")
    return f"{bank}.zarr/{ZARR_DOCUMENT}" if inside else ""


def check_rows(entry: ObjectEntry, data: bytes, rows: Sequence[CatalogRow]) -> tuple[dict[str, Array], list[Problem]]:
    """Check every row of one object.

    Args:
        entry: of the object in the manifest.
        data: all bytes of the object.
        rows: of the samples in it.

    Returns:
        The arrays of valid rows by key, and the problems of the others.
    """
    arrays, problems = {}, []
    for row in rows:
        found = check_row(data, row)
        if isinstance(found, Problem):
            problems.append(Problem(loc=f"{entry.path}: {found.loc}", message=found.message))
        else:
            arrays[row["key"]] = found
    return arrays, problems


def compare_readers(
    entry: ObjectEntry, data: bytes, rows: Sequence[CatalogRow], ours: dict[str, Array], document: bytes | None
) -> list[Problem]:
    """Compare the loader's values with those that the standard library of the format reads.

    Args:
        entry: of the object in the manifest.
        data: all bytes of the object.
        rows: of the samples in it.
        ours: the loader's arrays by key.
        document: the bank's ``zarr.json``; None for a tar shard, which webdataset reads.

    Returns:
        A problem for each sample that differs, or one if the library cannot open the object.
    """
    try:
        theirs = read_with_webdataset(data) if document is None else read_with_zarr(document, entry.path, data, rows)
    except FOREIGN_ERRORS as error:
        found = f"its standard library cannot open it: {type(error).__name__}: {error}"
        return [Problem(loc=entry.path, message=found)]
    differing = [key for key, array in ours.items() if key not in theirs or not _same(theirs[key], array)]
    return [Problem(loc=f"{entry.path}: {key}", message="its standard library reads other values") for key in differing]


def _same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool(np.array_equal(one, other))


def check_bytes(entry: ObjectEntry, data: bytes) -> list[Problem]:
    """Check that these are the bytes that were published.

    Args:
        entry: of the object in the manifest.
        data: all bytes of the object.

    Returns:
        Problems of size and sha256; none if both are right.
    """
    problems = []
    if len(data) != entry.size:
        problems.append(Problem(loc=entry.path, message=f"has {len(data):,} bytes; the manifest says {entry.size:,}"))
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        problems.append(Problem(loc=entry.path, message="does not match its sha256; restore it or prepare the dataset again"))
    return problems


def check_object(entry: ObjectEntry, rows: Sequence[CatalogRow], document: ObjectEntry | None, dataset: Bucket) -> list[Problem]:
    """Check size and hash of one object, and every sample in it.

    Args:
        entry: of the object.
        rows: of the samples in it, which follow the contract.
        document: entry of the bank's ``zarr.json``, for a shard of a bank.
        dataset: where it is published.

    Returns:
        Every problem; none if the object is as published.
    """
    try:
        data = dataset.read(entry.path)
    except StorageError as error:
        return [Problem(loc=entry.path, message=str(error))]
    problems = check_bytes(entry, data)
    ours, damaged = check_rows(entry, data, rows)
    if not rows or problems:
        return [*problems, *damaged]
    if entry.role != "bank":
        return [*damaged, *compare_readers(entry, data, rows, ours, None)]
    if document is None:
        return [*damaged, Problem(loc=entry.path, message=f"lies in no bank that has a {ZARR_DOCUMENT} in the manifest")]
    try:
        described = dataset.read(document.path)
    except StorageError:
        return damaged  # reported where that object itself is checked
    return damaged if check_bytes(document, described) else [*damaged, *compare_readers(entry, data, rows, ours, described)]


def run_check(task: str, dataset: Bucket) -> str:
    """Run the check of one object, as a Ray task.

    Args:
        task: JSON text from :func:`crossdim.pipelines.jobs.verify.build_object_tasks`.
        dataset: where the object is published.

    Returns:
        The problems, as JSON text.
    """
    request = json.loads(task)
    document = ObjectEntry(**request["document"]) if request["document"] else None
    problems = check_object(ObjectEntry(**request["entry"]), request["rows"], document, dataset)
    return canonical_json([{"loc": p.loc, "message": p.message} for p in problems]).decode()
