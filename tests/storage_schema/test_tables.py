"""A table is read only if its bytes are those that were published, and by this thread alone."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crossdim.storage_schema.catalog import CATALOG_SCHEMA, QUARANTINE_SCHEMA, build_table
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.storage_schema.manifest import ObjectEntry
from crossdim.storage_schema.tables import parse_published_columns, parse_published_table
from crossdim.storage_schema.vocabulary import Presentation
from tests.storage_schema.catalog_rows import rows

IMAGE = Presentation.PSEUDO3D


def parquet(table: pa.Table, **how: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **how)
    return buffer.getvalue()


def entry(data: bytes) -> ObjectEntry:
    return ObjectEntry(path="catalog/a.parquet", size=len(data), sha256=hashlib.sha256(data).hexdigest(), role="catalog")


def opened(data: bytes, of: ObjectEntry, schema: pa.Schema = CATALOG_SCHEMA) -> pa.Table:
    return parse_published_table(data, of, schema, "catalog", version=2)


def test_no_bit_of_a_table_changes_unseen():
    """Without the hash 38 % of single flipped bits in a Parquet file changed values and nothing was said."""
    data = parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))
    assert opened(data, entry(data)).to_pylist() == rows(IMAGE)
    for bit in range(0, 8 * len(data), 101):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StorageError, match=r"its sha256 is .*restore the object"):
            opened(bytes(changed), entry(data))


@pytest.mark.parametrize("damaged", [b"", b"PAR1", b"\0"])
def test_a_table_of_another_size_is_not_hashed(damaged):
    with pytest.raises(StorageError, match="bytes; the manifest says"):
        opened(damaged, entry(parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))))


@pytest.mark.parametrize("data", [b"", b"PAR1" * 4, b"\0" * 100])
def test_a_published_object_that_is_no_table_is_refused_in_words(data):
    with pytest.raises(DocumentError, match="is no Parquet file"):
        opened(data, entry(data))


def test_texts_that_are_no_utf_8_are_refused():
    """Arrow takes them, and fails when they become Python values."""
    changed = build_table(rows(IMAGE), CATALOG_SCHEMA)
    damaged = pa.array([b"\xff\xfe"] * 3, pa.binary()).view(pa.string())
    changed = changed.set_column(changed.schema.get_field_index("patient"), CATALOG_SCHEMA.field("patient"), damaged)
    data = parquet(changed)
    with pytest.raises(DocumentError, match="UTF"):
        opened(data, entry(data))


def test_a_table_that_would_fill_the_memory_is_not_opened(monkeypatch):
    """The file says how much it unpacks to."""
    data = parquet(build_table([], QUARANTINE_SCHEMA))
    assert opened(data, entry(data), QUARANTINE_SCHEMA).num_rows == 0
    data = parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))
    monkeypatch.setattr("crossdim.storage_schema.tables.MAX_TABLE_BYTES", 1000)
    with pytest.raises(DocumentError, match="at most 1,000"):
        opened(data, entry(data))


def test_columns_are_read_whatever_the_schema():
    data = parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))
    found = parse_published_columns(data, entry(data), "catalog", ["split", "key"])
    assert found.to_pylist() == [{"key": row["key"], "split": row["split"]} for row in rows(IMAGE)]
    with pytest.raises(StorageError, match="its sha256 is"):
        parse_published_columns(data[:-1] + b"X", entry(data), "catalog", ["key"])


_COUNT_THREADS = """
import hashlib, os, sys
from crossdim.storage_schema.manifest import ObjectEntry
from crossdim.storage_schema.tables import parse_published_columns
data = sys.stdin.buffer.read()
entry = ObjectEntry(path="a", size=len(data), sha256=hashlib.sha256(data).hexdigest(), role="catalog")
before = len(os.listdir("/proc/self/task"))
rows = parse_published_columns(data, entry, "a").num_rows
print(rows, len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.integration
def test_no_thread_is_left_that_could_wait_for_an_interpreter_that_ends():
    """A thread of Arrow's pool that releases a Python object then aborts the process, at random."""
    data = parquet(build_table(rows(IMAGE), CATALOG_SCHEMA))
    done = subprocess.run([sys.executable, "-c", _COUNT_THREADS], input=data, capture_output=True, check=True)
    assert done.stdout.split() == [b"3", b"0"]
