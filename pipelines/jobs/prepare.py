"""Prepare: list, scan, plan, run what is not done yet, publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from crossdim.foundation import signals
from crossdim.foundation.bars import write_lines
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.manifest_file import find_newest_manifest
from crossdim.foundation.progress import show_progress
from crossdim.foundation.settings import to_document
from crossdim.pipelines.driver_record import record_driver
from crossdim.pipelines.jobs.append import Earlier, read_earlier
from crossdim.pipelines.jobs.engine import OpenSession, run_each, runs_here
from crossdim.pipelines.jobs.flagged_notes import tell_flagged
from crossdim.pipelines.jobs.inputs import check_inputs, record_inputs
from crossdim.pipelines.jobs.names import NamedFile, make_readable
from crossdim.pipelines.jobs.output import check_free
from crossdim.pipelines.jobs.plan import Plan
from crossdim.pipelines.jobs.planning import Planned, find_labels, scan_and_plan
from crossdim.pipelines.jobs.preparation import Preparation, PrepareResult
from crossdim.pipelines.jobs.published import answer_published, find_input_changes, open_published
from crossdim.pipelines.jobs.published_inputs import build_published_inputs, find_duplicates, write_published_inputs
from crossdim.pipelines.jobs.recipe import VolumeRecipe
from crossdim.pipelines.jobs.request import RequestDigests
from crossdim.pipelines.jobs.source_inputs import SourceInputs
from crossdim.pipelines.jobs.splits import Part, check_parts, count_parts, tell_parts
from crossdim.pipelines.jobs.task import TaskContext, run_task
from crossdim.pipelines.markers import Marker, find_finished_rows, list_contents, list_marker_paths, read_markers, remove_scratch
from crossdim.pipelines.plan_record import PlanRecord, read_plan_record, write_plan_record
from crossdim.pipelines.publish import Bank, ManifestHeader, publish
from crossdim.pipelines.quarantine import Quarantined
from crossdim.pipelines.sources.labels import Labels
from crossdim.pipelines.sources.listing import SourceFile, list_sources
from crossdim.pipelines.sources.overlap import check_apart, check_links_apart
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.manifest import Manifest


def run_tasks(context: TaskContext, plan: Plan, preparation: Preparation) -> None:
    """Run every task that has no marker yet.

    Args:
        context: what all tasks share.
        plan: the tasks.
        preparation: with concurrency and quiet.
    """
    done = find_finished_rows(context.out, plan.digest)
    signals.tell_written(written=bool(done))
    if done:
        write_lines(
            [f"resuming: {len(done)} of {count(len(plan.tasks), 'row')} {'is' if len(plan.tasks) == 1 else 'are'} written"]
        )
    todo = [canonical_json(to_document(task)).decode() for task in plan.tasks if task.number not in done]
    with show_progress("prepare", "row", len(plan.tasks), done=len(done), quiet=preparation.quiet) as progress:
        progress.stage("preparing the first row", is_first_unit=runs_here())
        for _ in run_each(todo, partial(run_task, context=context), concurrency=preparation.concurrency):
            signals.tell_written(written=True)
            progress.advance()


def prepare(preparation: Preparation, open_session: OpenSession) -> PrepareResult:
    """Turn raw sources into one published dataset; the same call resumes after an interruption.

    Args:
        preparation: what is asked for.
        open_session: opens what the work is done in; wrong paths are reported before.

    Returns:
        What was published, refused and ignored.

    Raises:
        StorageError: if the sources hold nothing, the store does not answer, or there is another dataset at the output.
        UsageError: for a table of labels with faults.
    """
    earlier = None
    check_apart(preparation.out, preparation.sources)
    preparation.pseudonyms.check(preparation.out)
    manifest = find_newest_manifest(preparation.out)
    if manifest is None:
        check_free(preparation.out)
        preparation.out.check_writable()
        signals.tell_written(written=bool(list_marker_paths(preparation.out)))
    sources, files = list_sources(preparation.sources)
    if manifest is not None:
        published = open_published(preparation, manifest, sources, files)
        changes = find_input_changes(preparation, published, sources, files)
        if changes is None:
            return answer_published(preparation, published, sources, files)
        preparation.out.check_writable()
        earlier = read_earlier(published, changes)
        if (unfinished := read_plan_record(preparation.out)) and unfinished.version <= earlier.version:
            remove_scratch(preparation.out)  # of a version that is published, or that another process has published meanwhile
        write_lines([f"version {earlier.version + 1} of {preparation.out.where('')}: {changes.describe()}"])
    check_links_apart(preparation.out, preparation.sources)
    labels = find_labels(preparation, sources, files)
    check_inputs(preparation.out, preparation.settings(), sources, files)
    with open_session(num_files=len(files), num_bytes=sum(file.size for file in files)):
        return _run_preparation(preparation, sources, files, labels, earlier)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Version:
    """A version that was published: manifest, quarantine and catalog, its parts, and notes for people."""

    manifest: Manifest
    quarantine: Sequence[Quarantined]
    catalog: Sequence[dict[str, object]]
    parts: dict[str, Part]
    notes: Sequence[str]


def _run_preparation(
    preparation: Preparation,
    sources: tuple[Bucket, ...],
    files: Sequence[SourceFile],
    labels: Labels,
    earlier: Earlier | None,
) -> PrepareResult:
    with record_driver(preparation.out):
        planned = scan_and_plan(preparation, sources, files, labels, earlier=earlier)
        made = _make_version(preparation, sources, files, planned, earlier)
    remove_scratch(preparation.out)
    outcome = PrepareResult(
        manifest=made.manifest,
        quarantined=dict(sorted(Counter(one.rule for one in made.quarantine).items())),
        ignored=dict(sorted(Counter(one.rule for one in planned.plan.ignored).items())),
        ignored_formats=dict(sorted(Counter(one.format for one in planned.plan.ignored).items())),
        unread=planned.unread,
        parts=made.parts,
        notes=(
            *tell_parts(made.parts, preparation.split),
            *planned.notes,
            *made.notes,
            *tell_flagged(made.catalog, preparation.modality),
        ),
        inputs=SourceInputs(
            sources=sources, rules=preparation.recipe.read, items=tuple(planned.plan.items), unplanned=planned.unplanned
        ),
    )
    if earlier is None:
        return outcome
    num_reused = earlier.count_reused(made.catalog)
    return replace(outcome, version=earlier.version + 1, changes=str(earlier.changes), num_reused=num_reused)


def _make_version(
    preparation: Preparation,
    sources: tuple[Bucket, ...],
    files: Sequence[SourceFile],
    planned: Planned,
    earlier: Earlier | None,
) -> _Version:
    """Run the tasks of a plan, and publish what they made."""
    out, plan, version = preparation.out, planned.plan, earlier.version + 1 if earlier else 1
    record_inputs(out, preparation.settings(), files)
    write_plan_record(out, _build_plan_record(plan, len(files), version))
    request = RequestDigests(files, planned.names.key).digest_of(preparation.settings())
    # The table of the version before is kept until the next one is there: they have one name where only contents differ.
    is_other_table = earlier is None or request != earlier.manifest.plan_digest
    notes = _write_name_map(preparation, sources, planned.files, request) if is_other_table else []
    context = TaskContext(
        sources=sources,
        out=out,
        recipe=preparation.recipe,
        name=preparation.name,
        split=preparation.split,
        plan_digest=plan.digest,
        version=version,
    )
    run_tasks(context, plan, preparation)
    markers = read_markers(out, plan.digest, (task.number for task in plan.tasks))
    named = _add_hashes(planned.files, files, markers, earlier)
    if is_other_table:
        _write_name_map(preparation, sources, named, request)
    reused = earlier.reuse(plan.reused) if earlier else None
    parts: dict[str, Part] = {}
    catalog: list[dict[str, object]] = []

    def check(rows: Sequence[dict[str, object]]) -> None:
        catalog.extend(rows)
        parts.update(count_parts(rows))
        check_parts(parts, preparation.split)
        duplicates = find_duplicates(list_contents([*([reused] if reused else []), *markers]), rows)
        record = build_published_inputs(preparation.settings(), files, plan.items, planned.names, duplicates)
        write_published_inputs(out, request, record)

    manifest, quarantine = publish(
        out,
        _build_header(preparation, request, len(files), planned.names.key_id),
        markers,
        plan.refused,
        plan.ignored,
        _build_bank(context, plan),
        partial(make_readable, files=planned.files),
        check,
        reused=reused,
        mark=context.mark,
    )
    if not is_other_table:
        notes = _write_name_map(preparation, sources, named, request)
    return _Version(manifest=manifest, quarantine=quarantine, catalog=catalog, parts=parts, notes=notes)


def _build_header(preparation: Preparation, request: str, num_files: int, key_id: str) -> ManifestHeader:
    return ManifestHeader(
        name=preparation.name,
        presentation=preparation.recipe.presentation,
        preprocessing=preparation.recipe.preprocessing(),
        plan_digest=request,
        num_files=num_files,
        patient_key_id=key_id,
    )


def _build_plan_record(plan: Plan, num_files: int, version: int) -> PlanRecord:
    return PlanRecord(
        plan=plan.digest,
        tasks=len(plan.tasks),
        files=num_files,
        refused=len(plan.refused),
        ignored=len(plan.ignored),
        version=version,
    )


def _add_hashes(
    named: Sequence[NamedFile], files: Sequence[SourceFile], markers: Sequence[Marker], earlier: Earlier | None
) -> list[NamedFile]:
    """The table of names with the hashes of all files that tasks have read, also for the version before, for later comparison."""
    read = {(one.source, one.path): one.sha256 for marker in markers for one in marker.files}
    hashes = earlier.find_hashes(files) if earlier else {}
    hashes |= {file.uri: sha256 for file in files if (sha256 := read.get((file.source, file.path)))}
    return [replace(one, sha256=hashes.get(one.path, "")) for one in named]


def _write_name_map(preparation: Preparation, sources: Sequence[Bucket], files: Sequence[NamedFile], request: str) -> list[str]:
    """Write the table of hashed names, and say where it is."""
    if not files:
        return []
    place = preparation.pseudonyms.write_name_map(files, sources[0], preparation.out, request)
    return [f"names are hashed; the table of names is {place.where('')}"]


def _build_bank(context: TaskContext, plan: Plan) -> Bank | None:
    """The bank of a volume recipe, with room for all that the plan reserved."""
    if not isinstance(context.recipe, VolumeRecipe):
        return None
    return Bank(path=context.bank_path, layout=context.recipe.layout, num_shards=plan.num_shards)
