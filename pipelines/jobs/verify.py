"""Verify: every byte of a published dataset is read and checked. All problems are reported, not only the first."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.manifest_file import read_manifest
from crossdim.foundation.progress import show_progress
from crossdim.pipelines.jobs.check import document_path, run_check
from crossdim.pipelines.jobs.engine import OpenSession, run_each, runs_here
from crossdim.pipelines.jobs.rows import CatalogRow
from crossdim.storage_schema.catalog import CATALOG_SCHEMA, IGNORED_SCHEMA, QUARANTINE_SCHEMA
from crossdim.storage_schema.contract import check_catalog
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import DocumentError, Problem, StorageError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.tables import parse_published_table

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


def read_tables(dataset: Bucket, manifest: Manifest, role: str, schema: pa.Schema) -> tuple[pa.Table, list[Problem]]:
    """Read one table of a dataset, without the parts that are not what was published.

    Args:
        dataset: where it is published.
        manifest: of the dataset.
        role: of the table.
        schema: of the table.

    Returns:
        All valid rows, and the problems of the other parts.
    """
    tables, problems = [schema.empty_table()], list[Problem]()
    for entry in manifest.with_role(role):
        try:
            data, where = dataset.read(entry.path), dataset.where(entry.path)
            tables.append(parse_published_table(data, entry, schema, where, version=manifest.version))
        except DocumentError as error:
            problems += [Problem(loc=f"{entry.path}: {p.loc}", message=p.message) for p in error.problems]
        except StorageError as error:
            problems.append(Problem(loc=entry.path, message=f"its rows are not checked: {error}"))
    return pa.concat_tables(tables), problems


def check_counts(manifest: Manifest, quarantine: pa.Table, ignored: pa.Table) -> list[Problem]:
    """Check the counts of the manifest against its tables; a manifest of version 1 does not count files.

    Args:
        manifest: of the dataset.
        quarantine: all rows of the table.
        ignored: all rows of the table.

    Returns:
        A problem for each count that differs.
    """
    counts = [("num_quarantined", quarantine.num_rows, manifest.num_quarantined)]
    if manifest.files:
        files = pc.sum(quarantine["num_files"]).as_py() or 0
        counts.append(("num_files_quarantined", files, manifest.files.quarantined))
        if manifest.with_role("ignored"):
            counts.append(("num_files_ignored", ignored.num_rows, manifest.files.ignored))
    return [
        Problem(loc=loc, message=f"the manifest says {stated}, the tables hold {found}")
        for loc, found, stated in counts
        if found != stated
    ]


def build_object_tasks(manifest: Manifest, rows: Sequence[CatalogRow]) -> list[str]:
    """Build a task for each object: its entry, the rows of the samples in it, and for a shard of a bank the bank's document.

    Args:
        manifest: of the dataset.
        rows: of the catalog, which follow the contract.

    Returns:
        The tasks, as JSON texts.
    """
    of_object: dict[str, list[CatalogRow]] = defaultdict(list)
    for row in rows:
        of_object[row["object"]].append(row)
    entries = {entry.path: asdict(entry) for entry in manifest.objects}
    return [
        canonical_json({"entry": entry, "rows": of_object[path], "document": entries.get(document_path(path))}).decode()
        for path, entry in entries.items()
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableCheck:
    """What manifest and tables of a dataset tell.

    Attributes:
        manifest: of the dataset.
        num_samples: rows of the catalog that could be read.
        problems: everything wrong with the tables.
        tasks: for each object, what :func:`crossdim.pipelines.jobs.check.run_check` is to be asked.
    """

    manifest: Manifest
    num_samples: int
    problems: tuple[Problem, ...]
    tasks: tuple[str, ...]


def check_tables(dataset: Bucket, version: int | None = None) -> TableCheck:
    """Check the tables of a dataset against its manifest and the contract.

    Args:
        dataset: where it is published.
        version: of the dataset; None for the newest.

    Returns:
        What is wrong with them, and what is to be asked of each object.

    Raises:
        UsageError: if there is no such version.
        StorageError: if nothing is published there.
        DocumentError: if the manifest itself is broken.
    """
    manifest = read_manifest(dataset, version)
    catalog, problems = read_tables(dataset, manifest, "catalog", CATALOG_SCHEMA)
    quarantine, more = read_tables(dataset, manifest, "quarantine", QUARANTINE_SCHEMA)
    ignored, others = read_tables(dataset, manifest, "ignored", IGNORED_SCHEMA)
    check = check_catalog(catalog, manifest)
    problems += [*more, *others, *check.problems, *check_counts(manifest, quarantine, ignored)]
    # A row that breaks the contract is reported, and its object is not checked by it.
    rows = catalog.select(_COLUMNS).filter(pa.array(check.sound)).to_pylist()
    tasks = tuple(build_object_tasks(manifest, rows))
    return TableCheck(manifest=manifest, num_samples=catalog.num_rows, problems=tuple(problems), tasks=tasks)


def verify(
    dataset: Bucket,
    open_session: OpenSession,
    *,
    version: int | None = None,
    concurrency: int | None = None,
    quiet: bool = False,
) -> Report:
    """Check every object, row and sample of a dataset against its manifest.

    Args:
        dataset: where it is published.
        open_session: opens what the work is done in; a missing manifest is reported before.
        version: of the dataset; None for the newest.
        concurrency: largest number of objects checked at a time.
        quiet: whether to show no progress bar.

    Returns:
        What was read, and every problem.

    Raises:
        StorageError: if nothing is published there.
        DocumentError: if the manifest itself is invalid.
    """
    tables = check_tables(dataset, version)
    problems = list(tables.problems)
    num_bytes = sum(entry.size for entry in tables.manifest.objects)
    num_objects = len(tables.tasks)
    with (
        open_session(num_files=num_objects, num_bytes=num_bytes),
        show_progress("verify", "object", num_objects, quiet=quiet) as progress,
    ):
        progress.stage("reading the first object", is_first_unit=runs_here())
        for answer in run_each(tables.tasks, partial(run_check, dataset=dataset), concurrency=concurrency):
            problems += [Problem(**problem) for problem in json.loads(answer)]
            progress.advance()
    return Report(
        num_objects=len(tables.manifest.objects),
        num_samples=tables.num_samples,
        num_bytes=num_bytes,
        problems=tuple(sorted(problems, key=str)),
    )
