"""The specification: README.md names every field with its type, and a reader written from it alone reads what is published."""

from __future__ import annotations

import re
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.bank import BLOSC, CRC_BYTES, BankLayout, bank_path
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, IGNORED_SCHEMA, QUARANTINE_SCHEMA
from crossdim.storage_schema.manifest import FIELDS, OBJECT_FIELDS, ROLES
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.shards import shard_path
from crossdim.storage_schema.vocabulary import (
    FORMAT_NAME,
    FORMAT_VERSION,
    REFUSED_SUFFIXES,
    Encoding,
    Modality,
    Presentation,
    Split,
)
from tests.training.published import images, publish, superpatches

TEXT = (Path(__file__).parents[2] / "storage_schema" / "README.md").read_text()


def tables(header: str) -> list[list[list[str]]]:
    """Cells of every table of the README whose first row is ``header``."""
    found, inside = [], False
    for line in TEXT.splitlines():
        if line == header:
            found.append([])
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("| ---"):
            found[-1].append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
    return found


@pytest.mark.parametrize(("number", "schema"), [(0, CATALOG_SCHEMA), (1, QUARANTINE_SCHEMA), (2, IGNORED_SCHEMA)])
def test_every_column_is_specified_with_its_type(number: int, schema: pa.Schema) -> None:
    """A column that is added to the schema and not to the page would be a format that nobody can read about."""
    rows = tables("| column | type | null | meaning |")[number]
    # Arrow calls the values of a list "item" or "element", depending on its version.
    stated = [(name, kind.replace("element:", "item:"), null) for name, kind, null, _ in rows]
    expected = [(f.name, str(f.type).replace("element:", "item:"), "yes" if f.nullable else "no") for f in schema]
    assert stated == expected
    assert all(meaning for *_, meaning in rows)


@pytest.mark.parametrize(("number", "fields"), [(0, FIELDS), (1, OBJECT_FIELDS)])
def test_every_field_of_the_manifest_is_specified(number: int, fields: dict[str, object]) -> None:
    assert [name for name, _ in tables("| field | value |")[number]] == list(fields)


def test_every_word_of_the_vocabulary_is_on_the_page() -> None:
    words = [*Presentation, *Modality, *Encoding, *Split, *ROLES, FORMAT_NAME]
    assert [word for word in map(str, words) if f"`{word}`" not in TEXT and f'"{word}"' not in TEXT] == []
    assert [suffix for suffix in REFUSED_SUFFIXES if f".{suffix}" not in TEXT] == []
    assert f"| `version` | `{FORMAT_VERSION}` |" in TEXT
    assert f"zstd, level {BLOSC['clevel']}, bitshuffle" in TEXT


def test_the_listing_has_the_paths_that_are_written() -> None:
    assert f"ct/{bank_path('mixed-superpatches-tiny', '2mm')}/{BankLayout.shard_object(6)} " in TEXT
    assert f"xr/{shard_path('xray-pseudo3d-tiny', 2)} " in TEXT


def test_a_range_that_ends_in_its_crc32c_has_the_crc32c_on_the_page() -> None:
    """Why the catalog leaves the last bytes of a chunk out: they would make all superpatches look alike."""
    stated = int(re.search(r"`(0x[0-9A-F]{8})`", TEXT)[1], 16)
    for data in (b"", b"one superpatch", bytes(1000)):
        assert google_crc32c.value(data + google_crc32c.value(data).to_bytes(CRC_BYTES, "little")) == stated


@pytest.mark.parametrize("samples", [images(3), superpatches(3, side=16)], ids=["shard", "bank"])
def test_a_reader_written_from_the_page_alone_reads_every_sample(samples: list[Sample], tmp_path: Path) -> None:
    """The snippet is run as it stands, and has nothing of ours to lean on."""
    publish(Bucket(str(tmp_path)), samples, "spec")
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert "storage_schema" not in snippet
    for number, sample in enumerate(samples):
        names: dict[str, object] = {"dataset": str(tmp_path), "number": number}
        exec(compile(snippet, "README.md", "exec"), names)
        assert names["row"]["key"] == sample.key
        assert names["stored"].dtype == sample.array.dtype
        assert np.array_equal(names["stored"], sample.array)
        assert np.allclose(names["unit"], sample.unit(), atol=1e-6)
