"""What opening a catalog costs: its bytes checked and parsed, and every rule for every row.

Limit: ``pyarrow.parquet.read_table``, with all threads of Arrow, of bytes that nobody has checked.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.stopwatch import in_turns, show
from crossdim.pipelines.publish import encode_parquet
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, build_table
from crossdim.storage_schema.contract import check_catalog
from crossdim.storage_schema.manifest import ObjectEntry
from crossdim.storage_schema.tables import parse_published_table
from crossdim.storage_schema.vocabulary import Presentation
from tests.storage_schema.catalog_rows import manifest, rows

ROWS = (100_000, 1_000_000)


def build_catalog(num_rows: int) -> pa.Table:
    """A catalog of equal rows, but for their keys."""
    table = build_table(rows(Presentation.PSEUDO3D)[:1], CATALOG_SCHEMA).take(pa.array(np.zeros(num_rows, np.int64)))
    digits = np.random.default_rng(0).bytes(16 * num_rows).hex()
    keys = pa.array([digits[start : start + 32] for start in range(0, len(digits), 32)])
    return table.set_column(table.schema.get_field_index("key"), CATALOG_SCHEMA.field("key"), keys).combine_chunks()


def main() -> None:
    """Measure catalogs of each size, in one part each."""
    for count in ROWS:
        table = build_catalog(count)
        data = encode_parquet(table)
        entry = ObjectEntry(path="catalog/a.parquet", size=len(data), sha256=hashlib.sha256(data).hexdigest(), role="catalog")
        stated = manifest(Presentation.PSEUDO3D, num_samples=count)
        limit = "read_table, nothing checked (limit)"
        cases = {
            limit: lambda data=data: pq.read_table(io.BytesIO(data)),
            "parse_published_table": lambda data=data, entry=entry: parse_published_table(
                data, entry, CATALOG_SCHEMA, "catalog", version=2
            ),
            "check_catalog": lambda table=table, stated=stated: check_catalog(table, stated),
        }
        show(f"{count:,} rows, {len(data) / 1e6:.0f} MB", in_turns(cases, runs=5), limit=limit, unit="s", per_second=1)


if __name__ == "__main__":
    main()
