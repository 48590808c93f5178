"""Reading the Parquet tables of a published dataset: no byte is parsed that is not what the manifest says was published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from crossdim.storage_schema.catalog import conform
from crossdim.storage_schema.errors import DocumentError, Problem, StorageError
from crossdim.storage_schema.manifest import ObjectEntry

#: No part of a table takes more memory; a part of 100,000 rows takes some 60 MB.
MAX_TABLE_BYTES = 2**31


def check_object_bytes(data: bytes, entry: ObjectEntry, subject: str) -> bytes:
    """Check the bytes of an object against the size and sha256 in the manifest.

    Args:
        data: all bytes of the object, as read.
        entry: the manifest's entry of the object.
        subject: where the bytes came from, for the error.

    Returns:
        ``data`` itself.

    Raises:
        StorageError: if size or sha256 differ.
    """
    remedy = "run crossdim verify, and restore the object or prepare the dataset again"
    if len(data) != entry.size:
        raise StorageError(f"{subject}: has {len(data):,} bytes; the manifest says {entry.size:,}; {remedy}")
    if (found := hashlib.sha256(data).hexdigest()) != entry.sha256:
        raise StorageError(f"{subject}: its sha256 is {found}; the manifest says {entry.sha256}; {remedy}")
    return data


def parse_published_table(data: bytes, entry: ObjectEntry, schema: pa.Schema, subject: str, *, version: int) -> pa.Table:
    """Parse one part of a table, after checking that its bytes are those that were published.

    Args:
        data: all bytes of the Parquet file, as read.
        entry: the manifest's entry of the file.
        schema: of the table.
        subject: where the bytes came from, for the error.
        version: of the dataset.

    Returns:
        The part, with the columns of ``schema``; columns that an older version lacks are nulls.

    Raises:
        StorageError: if the bytes are not those that were published; they are not parsed then.
        DocumentError: if they are no Parquet file, hold more than ``MAX_TABLE_BYTES``, or do not have this schema.
    """
    return conform(parse_published_columns(data, entry, subject), schema, subject, version=version)


def parse_published_columns(data: bytes, entry: ObjectEntry, subject: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Parse columns of one part of a table, whatever its schema, after checking its bytes.

    Args:
        data: all bytes of the Parquet file, as read.
        entry: the manifest's entry of the file.
        subject: where the bytes came from, for the error.
        columns: names; those that the file lacks are left out; all by default.

    Returns:
        The part, in the order of the columns of the file.

    Raises:
        StorageError: if the bytes are not those that were published; they are not parsed then.
        DocumentError: if they are no Parquet file or hold more than ``MAX_TABLE_BYTES``.
    """
    check_object_bytes(data, entry, subject)
    try:
        table = _read_in_this_thread(data, subject, columns)
        table.validate(full=True)  # among others that texts are UTF-8
    except (pa.ArrowException, OSError) as error:
        raise DocumentError(subject, [Problem(loc="table", message=f"is no Parquet file that can be read: {error}")]) from error
    return table


def _read_in_this_thread(data: bytes, subject: str, columns: Sequence[str] | None) -> pa.Table:
    """Read a Parquet file without Arrow's threads.

    ``pyarrow.parquet.read_table`` leaves the last reference to its source to a thread of Arrow's pool. That thread waits for
    the interpreter to release it; if the interpreter has begun to end by then, the process aborts, whatever its exit code was
    to be: 2 of 60 runs of ``crossdim prepare`` that had nothing to do ended by signal 6.
    """
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if (size := sum(group.total_byte_size for group in groups)) > MAX_TABLE_BYTES:
            raise DocumentError(subject, [Problem(loc="table", message=f"takes {size:,} bytes; at most {MAX_TABLE_BYTES:,}")])
        return file.read(None if columns is None else list(columns), use_threads=False)
