"""Time the summary and the page of a dataset whose tables are repeated: ``python -m benchmarks.pages DATASET --copies 2500``.

Rows are what grows with a dataset; the number of samples that a page shows does not. Afterwards, what ``prepare`` looks at for
the page is timed: a refused slice, and the values of a CT of ordinary size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines import decoder_process
from crossdim.pipelines.readers.raw import RawItem
from crossdim.pipelines.show.page import build_page
from crossdim.pipelines.show.summary import Tables, read_tables, summarise
from crossdim.storage_schema.vocabulary import Modality
from tests.pipelines.corpora import nifti_bytes, picture
from tests.pipelines.dicom_files import dicom_bytes

#: Columns that tell inputs and patients apart: each copy has its own.
NAMES = ("key", "source_uri", "source_sha256", "patient")


def repeat_tables(tables: Tables, copies: int) -> Tables:
    """Repeat the tables of a dataset, each copy with inputs and patients of its own.

    Args:
        tables: of a dataset.
        copies: how many.

    Returns:
        The tables; all copies refer to the samples of the first.
    """
    catalog = pa.concat_tables([tables.catalog] * copies)
    numbers = np.repeat(np.arange(copies), tables.catalog.num_rows)
    for name in NAMES:
        values = pa.array([f"{value}-{number}" for value, number in zip(catalog[name].to_pylist(), numbers, strict=True)])
        catalog = catalog.set_column(catalog.column_names.index(name), name, values)
    few = max(1, copies // 10)
    quarantine, ignored = (pa.concat_tables([one] * few) for one in (tables.quarantine, tables.ignored))
    return replace(tables, catalog=catalog, quarantine=quarantine, ignored=ignored)


def measure(name: str, work: Callable[[], object]) -> object:
    """Run a function, print its seconds of wall and processor, and return its result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    print(f"{name}: {time.perf_counter() - wall:.2f} s, {time.process_time() - processor:.2f} s of processor time")
    return result


def measure_looking() -> None:
    """Time the look at one refused slice of 512 x 512 (120 files are looked at, at most), and at one CT of 512 x 512 x 300."""
    slices = [dicom_bytes(picture(seed, 512, 512).astype(np.int16)) for seed in range(9)]
    decoder_process.preview(slices[0])  # starts the decoder
    measure("previews of 9 slices", lambda: [decoder_process.preview(data) for data in slices])
    volume = nifti_bytes(np.random.default_rng(0).integers(-1000, 1500, (512, 512, 300), np.int16), (0.7, 0.7, 1.0))
    item = RawItem(uri="ct", files=(volume,), modality=Modality.CT, num_values=512 * 512 * 300)
    for _ in range(3):
        measure("values of a CT", lambda: decoder_process.count_values("nifti", item))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("dataset")
    parser.add_argument("--copies", type=int, default=2500)
    arguments = parser.parse_args()
    dataset = Bucket(arguments.dataset)
    tables = repeat_tables(read_tables(dataset), arguments.copies)
    print(f"{tables.catalog.num_rows:,} rows, {tables.quarantine.num_rows:,} quarantined, {tables.ignored.num_rows:,} ignored")
    for _ in range(3):
        measure("summary", lambda: summarise(tables))
        page = measure("page", lambda: build_page(dataset, tables))
    print(f"{len(page) / 1e6:.1f} MB")  # type: ignore[arg-type]
    measure_looking()


if __name__ == "__main__":
    main()
