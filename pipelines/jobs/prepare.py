"""Prepare: list, scan, plan, run what is not done yet, publish."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from foundation.bucket import Bucket
from foundation.location import contains
from foundation.settings import to_document
from pipelines.decoders.probe import promised
from pipelines.jobs.engine import Session, each
from pipelines.jobs.plan import Naming, Plan, make_plan
from pipelines.jobs.recipe import Recipe, VolumeRecipe
from pipelines.jobs.row import Job, run_row
from pipelines.jobs.scan import scan
from pipelines.jobs.verdict import Verdict
from pipelines.publish import WORK, Bank, Title, finished_rows, publish, read_markers, told
from pipelines.quarantine import Quarantined
from pipelines.sources.label_matching import match_series, match_table
from pipelines.sources.labels import Known, Labels, LabelTable
from pipelines.sources.listing import SourceFile, folder_name, list_sources
from pipelines.sources.words import label_in, modality_in
from storage_schema.digest import canonical_json
from storage_schema.errors import StorageError, UsageError
from storage_schema.manifest import MANIFEST_PATH, Manifest, parse_manifest
from storage_schema.vocabulary import Modality

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a user asks for. ``modality`` stands in for headers and folder names."""

    sources: tuple[Bucket, ...]
    out: Bucket
    recipe: Recipe
    name: str
    test_fraction: float = 0.0
    modality: Modality | None = None
    label_table: LabelTable | None = None
    label_by_folder: bool = False
    concurrency: int | None = None
    quiet: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of it."""

    manifest: Manifest
    quarantined: dict[str, int]
    ignored: dict[str, int]
    seconds: float
    already_published: bool = False

    @property
    def num_bytes(self) -> int:
        """Size of all objects."""
        return sum(entry.size for entry in self.manifest.objects)


def _folders(sources: Sequence[Bucket]) -> list[str]:
    """The name of each source's own folder."""
    return [folder_name(source.url) for source in sources]


def find_labels(order: Order, sources: Sequence[Bucket], files: Sequence[SourceFile]) -> Labels:
    """What table and folders say of the files; how well they fit is told before anything is scanned.

    Raises:
        UsageError: for a table with faults, or one that names none of the files.
    """
    labels, folders = Labels(), _folders(sources)
    if order.label_table is not None:
        roots = [(source.url.rstrip("/"), source.root) for source in sources]
        labels, told = match_table(order.label_table, files, folders, roots, partial(_may_be_read, recipe=order.recipe))
        _tell(told)
    if order.label_by_folder:
        labels = labels.with_folders({(file.source, file.path): label_in(file.path, folders[file.source]) for file in files})
    return labels


def _may_be_read(file: SourceFile, recipe: Recipe) -> bool:
    """Whether a file's name is one of the recipe's formats, or says nothing, as DICOM files are often named."""
    families = {kind.family for kind in recipe.formats}
    promise = promised(file.path)
    return promise in families or (promise is None and "." not in file.path.rpartition("/")[2])


def _tell(lines: Iterable[str]) -> None:
    sys.stderr.writelines(f"labels: {line}\n" for line in lines)


def _naming(order: Order, sources: Sequence[Bucket], labels: Labels) -> Naming:
    """How files are named to labels and modality words: below the source's own folder name."""
    folders = _folders(sources)

    def known(files: Sequence[Verdict]) -> Known:
        series = files[0].facts.series if files[0].facts else None
        return labels.of([(file.source, file.path) for file in files], series)

    def modality(verdict: Verdict) -> Modality:
        return order.modality or modality_in(verdict.path, folders[verdict.source])

    return Naming(known=known, modality=modality)


def plan_of(order: Order, sources: Sequence[Bucket], files: Sequence[SourceFile], labels: Labels) -> Plan:
    """The plan for what is in the sources.

    Raises:
        StorageError: if nothing in them can be read by the recipe.
        UsageError: if no row of the table of labels names an input.
    """
    verdicts = scan(files, sources, order.recipe.read, concurrency=order.concurrency, quiet=order.quiet)
    if order.label_table is not None:
        series = {verdict.facts.series for verdict in verdicts if verdict.facts and verdict.facts.series}
        _tell(match_series(order.label_table, labels, series))
    identity: dict[str, object] = {"name": order.name, "test_fraction": order.test_fraction}
    plan = make_plan(verdicts, order.recipe, _naming(order, sources, labels), identity)
    if not plan.rows:
        where = ", ".join(source.url for source in order.sources)
        wanted = ", ".join(sorted(order.recipe.formats))
        raise StorageError(
            f"nothing to prepare among {len(files)} files of {where}; the recipe reads {wanted}. {told(plan.refused)}"
        )
    return plan


def check_apart(order: Order) -> None:
    """Refuse an output inside a source, whose next run would read what this one wrote, and a source inside the output.

    Raises:
        UsageError: naming the two.
    """
    out = order.out
    for source in order.sources:
        if contains(source.url, out.url):
            raise UsageError(f"--out {out.where('')} lies inside the source {source.where('')}; publish beside it")
        if contains(out.url, source.url):
            raise UsageError(f"the source {source.where('')} lies inside --out {out.where('')}; publish beside it")


def published(out: Bucket) -> Manifest | None:
    """The manifest of a dataset that is there already."""
    if not out.exists(MANIFEST_PATH):
        return None
    return parse_manifest(out.read(MANIFEST_PATH), out.where(MANIFEST_PATH))


def run_rows(job: Job, plan: Plan, order: Order) -> None:
    """Write every row that has no marker yet."""
    done = finished_rows(job.out, plan.digest)
    if done:
        logger.info("resuming: %d of %d rows are written", len(done), len(plan.rows))
    todo = [canonical_json(to_document(row)).decode() for row in plan.rows if row.number not in done]
    counts: Counter[str] = Counter()
    with tqdm(total=len(plan.rows), initial=len(done), desc="prepare", unit="row", disable=order.quiet) as bar:
        for answer in each(todo, partial(run_row, job=job), concurrency=order.concurrency):
            counts.update({k: v for k, v in json.loads(answer).items() if k != "row"})
            bar.set_postfix(counts, refresh=False)
            bar.update()


def prepare(order: Order, session: Session) -> Outcome:
    """Turn raw sources into one published dataset; the same order goes on where it was interrupted.

    Args:
        order: what is asked for.
        session: opens the Ray session that the work is done in; a wrong path is told before it is opened.

    Raises:
        StorageError: if the sources hold nothing, the store does not answer, or another dataset stands at the output.
        UsageError: for a table of labels with faults.
    """
    check_apart(order)
    sources, files = list_sources(order.sources)
    labels = find_labels(order, sources, files)
    with session():
        return _prepared(order, sources, files, labels)


def _prepared(order: Order, sources: tuple[Bucket, ...], files: Sequence[SourceFile], labels: Labels) -> Outcome:
    start = time.monotonic()
    plan = plan_of(order, sources, files, labels)
    manifest = published(order.out)
    if manifest is not None:
        if manifest.plan_digest != plan.digest:
            raise StorageError(
                f"{order.out.url} holds {manifest.name!r}, made from other inputs or another recipe; use another --out"
            )
        _tidy(order.out)
        return _outcome(manifest, (), plan, start, already_published=True)
    job = Job(
        sources=sources,
        out=order.out,
        recipe=order.recipe,
        name=order.name,
        test_fraction=order.test_fraction,
        plan_digest=plan.digest,
    )
    run_rows(job, plan, order)
    markers = read_markers(order.out, plan.digest, (row.number for row in plan.rows))
    title = Title(
        name=order.name,
        presentation=order.recipe.presentation,
        preprocessing=order.recipe.preprocessing(),
        plan_digest=plan.digest,
        num_files=len(files),
        num_files_ignored=sum(plan.ignored.values()),
    )
    manifest, quarantine = publish(order.out, title, markers, plan.refused, _bank(job, plan))
    _tidy(order.out)
    return _outcome(manifest, quarantine, plan, start)


def _bank(job: Job, plan: Plan) -> Bank | None:
    """The bank of a volume recipe, with room for all that the plan reserved."""
    if not isinstance(job.recipe, VolumeRecipe):
        return None
    return Bank(path=job.bank_path, layout=job.recipe.layout, num_shards=plan.num_shards)


def _tidy(out: Bucket) -> None:
    """Remove the scratch of a published dataset, also what a run left that died right after its commit."""
    if out.exists(WORK):
        out.delete(WORK)


def _outcome(
    manifest: Manifest, quarantine: Sequence[Quarantined], plan: Plan, start: float, *, already_published: bool = False
) -> Outcome:
    return Outcome(
        manifest=manifest,
        quarantined=dict(sorted(Counter(one.rule for one in quarantine).items())),
        ignored={rule: count for rule, count in plan.ignored.items() if count},
        seconds=time.monotonic() - start,
        already_published=already_published,
    )
