"""Verify: a published dataset, re-read to the last byte. All problems are reported, not the first."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet
from tqdm import tqdm

from foundation.bucket import Bucket
from pipelines.jobs.check import CatalogRow, run_check
from pipelines.jobs.engine import Session, each
from storage_schema.catalog import CATALOG_SCHEMA, QUARANTINE_SCHEMA, conform
from storage_schema.digest import canonical_json
from storage_schema.errors import DocumentError, Problem, StorageError
from storage_schema.manifest import MANIFEST_PATH, Manifest, parse_manifest

#: What a check of an object needs of a catalog row.
_COLUMNS = ("key", "object", "offset", "length", "crc32c", "encoding", "position", "shape", "dtype")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was read, and everything wrong with it."""

    num_objects: int
    num_samples: int
    num_bytes: int
    problems: tuple[Problem, ...]

    def document(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return {
            "objects": self.num_objects,
            "samples": self.num_samples,
            "bytes": self.num_bytes,
            "problems": [asdict(problem) for problem in self.problems],
        }


def read_table(dataset: Bucket, path: str, schema: pa.Schema, version: int) -> pa.Table | list[Problem]:
    """One Parquet part, or what is wrong with it."""
    try:
        table = pa.parquet.read_table(io.BytesIO(dataset.read(path)))
        return conform(table, schema, dataset.where(path), version=version)
    except DocumentError as error:
        return [Problem(loc=f"{path}: {p.loc}", message=p.message) for p in error.problems]
    except (StorageError, pa.ArrowException, OSError) as error:
        return [Problem(loc=path, message=f"cannot be read: {error}")]


def read_tables(dataset: Bucket, manifest: Manifest, role: str, schema: pa.Schema) -> tuple[list[CatalogRow], list[Problem]]:
    """All rows of the parts of one role, and what is wrong with them."""
    rows: list[CatalogRow] = []
    problems: list[Problem] = []
    for entry in manifest.with_role(role):
        found = read_table(dataset, entry.path, schema, manifest.version)
        if isinstance(found, list):
            problems += found
        else:
            rows += found.to_pylist()
    return rows, problems


def check_counts(manifest: Manifest, rows: Sequence[CatalogRow], quarantine: Sequence[CatalogRow]) -> list[Problem]:
    """What does not add up between manifest and tables."""
    known = {entry.path for entry in manifest.objects}
    twice = [key for key, count in Counter(row["key"] for row in rows).items() if count > 1]
    problems = [Problem(loc=f"catalog: {key}", message="key stands in several rows") for key in twice]
    problems += [
        Problem(loc=f"catalog: {row['key']}", message=f"lies in {row['object']}, which the manifest does not name")
        for row in rows
        if row["object"] not in known
    ]
    for loc, found, stated in (
        ("num_samples", len(rows), manifest.num_samples),
        ("num_quarantined", len(quarantine), manifest.num_quarantined),
    ):
        if found != stated:
            problems.append(Problem(loc=loc, message=f"the manifest says {stated}, the tables hold {found}"))
    wanted = manifest.preprocessing_digest
    strangers = sum(row["preprocessing_digest"] != wanted for row in rows)
    if strangers:
        problems.append(
            Problem(loc="preprocessing_digest", message=f"{strangers} catalog rows name another one than the manifest")
        )
    return problems


def verify(dataset: Bucket, session: Session, *, concurrency: int | None = None, quiet: bool = False) -> Report:
    """Hold every object, row and sample of a dataset against its manifest.

    Args:
        dataset: where it is published.
        session: opens the Ray session that the work is done in; a missing manifest is told before it is opened.
        concurrency: largest number of objects checked at a time.
        quiet: no progress bar.

    Raises:
        StorageError: if nothing is published there.
        DocumentError: if the manifest itself is broken.
    """
    if not dataset.exists(MANIFEST_PATH):
        raise StorageError(f"{dataset.url} is no published dataset: it has no {MANIFEST_PATH}; run or finish crossdim prepare")
    manifest = parse_manifest(dataset.read(MANIFEST_PATH), dataset.where(MANIFEST_PATH))
    rows, problems = read_tables(dataset, manifest, "catalog", CATALOG_SCHEMA)
    quarantine, more = read_tables(dataset, manifest, "quarantine", QUARANTINE_SCHEMA)
    problems += more + check_counts(manifest, rows, quarantine)
    of_object: dict[str, list[CatalogRow]] = defaultdict(list)
    for row in rows:
        of_object[row["object"]].append({name: row[name] for name in _COLUMNS})
    tasks = [canonical_json({"entry": asdict(entry), "rows": of_object[entry.path]}).decode() for entry in manifest.objects]
    with session(), tqdm(total=len(tasks), desc="verify", unit="object", disable=quiet) as bar:
        for answer in each(tasks, partial(run_check, dataset=dataset), concurrency=concurrency):
            problems += [Problem(**problem) for problem in json.loads(answer)]
            bar.update()
    return Report(
        num_objects=len(manifest.objects),
        num_samples=len(rows),
        num_bytes=sum(entry.size for entry in manifest.objects),
        problems=tuple(sorted(problems, key=str)),
    )
