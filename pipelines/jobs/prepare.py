"""Prepare: list, scan, plan, run what is not done yet, publish."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from tqdm import tqdm

from crossdim.foundation import signals
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.settings import to_document
from crossdim.pipelines.counts import count
from crossdim.pipelines.jobs.flagged_notes import tell_flagged
from crossdim.pipelines.jobs.inputs import check_inputs, record_inputs
from crossdim.pipelines.jobs.label_maps import named_maps, sentence_of_maps, set_label_maps_aside
from crossdim.pipelines.jobs.names import NamedFile, SourceNames, choose_names, holds_dicom, readable
from crossdim.pipelines.jobs.output import check_free, check_objects, count_rows, published, read_rows, refuse_other
from crossdim.pipelines.jobs.plan import Naming, Plan, make_plan, series_id, series_of
from crossdim.pipelines.jobs.preparation import Order, Outcome
from crossdim.pipelines.jobs.ray_data import Session, each
from crossdim.pipelines.jobs.recipe import READERS, Recipe, VolumeRecipe
from crossdim.pipelines.jobs.request import request_digest
from crossdim.pipelines.jobs.scan import scan
from crossdim.pipelines.jobs.scan_result import Verdict
from crossdim.pipelines.jobs.splits import Part, check_parts, check_patients, parts_of, tell_parts
from crossdim.pipelines.jobs.task import Job, run_row
from crossdim.pipelines.jobs.unchanged import check_unchanged
from crossdim.pipelines.jobs.unread import UnreadFormat, sentence_of_unread, unread_formats
from crossdim.pipelines.markers import Marker, finished_rows, marker_paths, read_markers, remove_scratch
from crossdim.pipelines.publish import Bank, Title, publish, told
from crossdim.pipelines.quarantine import Quarantined
from crossdim.pipelines.readers.probe import promised
from crossdim.pipelines.sources.folder_names import label_in, modality_in
from crossdim.pipelines.sources.ignored_names import ignored_by_name
from crossdim.pipelines.sources.label_matching import match_series, match_table
from crossdim.pipelines.sources.labels import Known, Labels
from crossdim.pipelines.sources.listing import SourceFile, folder_name, list_sources
from crossdim.pipelines.sources.overlap import check_apart, check_links_apart
from crossdim.storage_schema.digest import canonical_json, digest
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.vocabulary import Modality


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
        maps = set() if order.include_label_maps else named_maps(files, sources)
        needing = [file for file in files if (file.source, file.path) not in maps and _may_be_read(file, order.recipe)]
        labels, told = match_table(order.label_table, files, needing, folders, roots)
        _tell(f"labels: {line}" for line in told)
        patients = [known.patient_id if (known := labels.by_file.get((one.source, one.path))) else None for one in needing]
        if len(set(patients)) == 1 and patients[0] is not None:
            check_patients(patients, order.split)  # the table alone shows that no test part can be drawn
    if order.label_by_folder:
        labels = labels.with_folders({(file.source, file.path): label_in(file.path, folders[file.source]) for file in files})
    return labels


def _may_be_read(file: SourceFile, recipe: Recipe) -> bool:
    """Whether a file's name is one of the recipe's formats, or says nothing, as DICOM files are often named."""
    families = {kind.family for kind in recipe.formats}
    promise, ending = promised(file.path), file.path.rpartition("/")[2].rpartition(".")[2]
    says_nothing = "." not in file.path.rpartition("/")[2] or ending.isdigit()
    return ignored_by_name(file.path) is None and (promise in families or (promise is None and says_nothing))


def _tell(lines: Iterable[str]) -> None:
    sys.stderr.writelines(f"{line}\n" for line in lines)


def _naming(order: Order, sources: Sequence[Bucket], labels: Labels, names: SourceNames) -> Naming:
    """How files are named to labels and modality words, below the source's own folder name, and how in the dataset."""
    folders = _folders(sources)

    def known(files: Sequence[Verdict]) -> Known:
        series = files[0].facts.series if files[0].facts else None
        return labels.of([(file.source, file.path) for file in files], series)

    def modality(verdict: Verdict) -> Modality:
        return order.modality or modality_in(verdict.path, folders[verdict.source])

    return Naming(known=known, modality=modality, names=names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A plan, the names of its inputs, what looks like images and is not read, and sentences that the user should know."""

    plan: Plan
    unread: dict[str, UnreadFormat]
    names: SourceNames
    files: tuple[NamedFile, ...]
    notes: tuple[str, ...]


def plan_of(order: Order, sources: Sequence[Bucket], files: Sequence[SourceFile], labels: Labels) -> Planned:
    """The plan for what is in the sources.

    Raises:
        StorageError: if nothing in them can be read by the recipe.
        UsageError: if no row of the table of labels names an input.
    """
    verdicts = scan(files, sources, order.recipe.read, concurrency=order.concurrency, quiet=order.quiet)
    if not order.include_label_maps:
        verdicts = set_label_maps_aside(verdicts, sources, order.recipe, concurrency=order.concurrency, quiet=order.quiet)
    if order.label_table is not None:
        series = [one.series for one in series_of(verdicts) if one.series]
        _tell(f"labels: {line}" for line in match_series(order.label_table, labels, series))
    maps = None if order.include_label_maps else sentence_of_maps(verdicts)
    _tell([maps] if maps else [])
    names = choose_names(
        verdicts,
        order.pseudonyms.names,
        has_patients=labels.names_patients,
        load_key=lambda: order.pseudonyms.draft_key(sources[0]),
    )
    planned = _plan_with(names, order, sources, files, labels, verdicts)
    if names.key is None:
        return planned
    # Stored only now that nothing is left to refuse; of preparations at one time, all take the key of the first.
    key = order.pseudonyms.load_key(sources[0], order.out, names.key)
    if key == names.key:
        return planned
    return _plan_with(replace(names, key=key), order, sources, files, labels, verdicts)


def _plan_with(
    names: SourceNames,
    order: Order,
    sources: Sequence[Bucket],
    files: Sequence[SourceFile],
    labels: Labels,
    verdicts: Sequence[Verdict],
) -> Planned:
    """The plan under these names, unless there is something to refuse."""
    identity: dict[str, object] = {"name": order.name, "split": asdict(order.split), "patient_key_id": names.key_id}
    plan = make_plan(names.publish(verdicts), order.recipe, _naming(order, sources, labels, names), identity)
    named = _named(verdicts, names, order.recipe)
    unread = unread_formats(verdicts)
    if not plan.rows:
        ignored = Counter(one.rule for one in plan.ignored)
        where = ", ".join(source.where("") for source in order.sources)
        wanted = ", ".join(sorted(order.recipe.formats))
        maps = None if order.include_label_maps else sentence_of_maps(verdicts)
        sentences = [
            f"nothing to prepare among {count(len(files), 'file')} of {where}; the recipe reads {wanted}",
            maps if maps and not plan.refused else readable(told(plan.refused), named),
            sentence_of_unread(unread) if unread else "",
            sentence_of_other_recipe(order.recipe, verdicts),
            "; ".join(f"ignored as {rule}: {number}" for rule, number in ignored.items()),
        ]
        raise StorageError(". ".join(sentence.rstrip(".") for sentence in sentences if sentence))
    items = [item for row in plan.rows for item in row.items]
    notes = check_patients((item.patient for item in items), order.split)
    if order.pseudonyms.names == "relative" and any(map(holds_dicom, verdicts)):
        notes.append("names of DICOM files and folders are published readable (--source-names relative); they may name patients")
    annotated = sum(item.burned_in_annotation for item in items)
    if annotated:
        notes.append(
            f"{annotated} of {count(len(items), 'input')} say that text is burned into their pixels; "
            "--burned-in refuse leaves them out"
        )
    return Planned(plan=plan, unread=unread, names=names, files=named, notes=tuple(notes))


def _named(verdicts: Sequence[Verdict], names: SourceNames, recipe: Recipe) -> tuple[NamedFile, ...]:
    """Every file of sources whose names are hashed, with its path and its names in the dataset."""
    found = []
    for verdict in verdicts:
        if verdict.source in names.hashed:
            series = series_id(verdict) if isinstance(recipe, VolumeRecipe) else None
            told = names.of_series(series, [verdict]) if series else ""
            found.append(NamedFile(path=verdict.uri, name=names.of_file(verdict), series=told, version=verdict.version))
    return tuple(found)


def run_rows(job: Job, plan: Plan, order: Order) -> None:
    """Write every row that has no marker yet."""
    done = finished_rows(job.out, plan.digest)
    signals.tell_written(written=bool(done))
    if done:
        _tell([f"resuming: {len(done)} of {count(len(plan.rows), 'row')} {'is' if len(plan.rows) == 1 else 'are'} written"])
    todo = [canonical_json(to_document(row)).decode() for row in plan.rows if row.number not in done]
    with tqdm(total=len(plan.rows), initial=len(done), desc="prepare", unit="row", disable=order.quiet) as bar:
        for _ in each(todo, partial(run_row, job=job), concurrency=order.concurrency):
            signals.tell_written(written=True)
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
    start = time.monotonic()
    check_apart(order.out, order.sources)
    order.pseudonyms.check(order.out)
    manifest = published(order.out)
    if manifest is None:
        check_free(order.out)
        order.out.check_writable()
        signals.tell_written(written=bool(marker_paths(order.out)))
    sources, files = list_sources(order.sources)
    if manifest is not None:
        return _already_published(order, manifest, sources, files, start)
    check_links_apart(order.out, order.sources)
    labels = find_labels(order, sources, files)
    check_inputs(order.out, order.settings(), sources, files)
    with session():
        return _prepared(order, sources, files, labels)


def sentence_of_other_recipe(recipe: Recipe, verdicts: Sequence[Verdict]) -> str:
    """Which recipe reads the files that this one does not; empty if none is known to."""
    found = Counter(verdict.facts.format for verdict in verdicts if verdict.facts and verdict.facts.format not in recipe.formats)
    readers = {kind: name for name, formats in READERS.items() for kind in formats}
    named = Counter({readers[kind]: number for kind, number in found.items() if kind in readers})
    return "; ".join(f"--recipe {name} reads {number} of them" for name, number in named.most_common())


def _already_published(
    order: Order, manifest: Manifest, sources: Sequence[Bucket], files: Sequence[SourceFile], start: float
) -> Outcome:
    """The outcome of a request whose dataset is there; nothing is scanned, and Ray is not started.

    Raises:
        StorageError: if the dataset was made of other inputs, in another way, or with another secret key.
    """
    key = order.pseudonyms.find_key(sources[0]) if manifest.patient_key_id else None
    if manifest.patient_key_id and (key is None or key.key_id != manifest.patient_key_id):
        found = f"key id {key.key_id} is found" if key else "none is found"
        raise StorageError(
            f"{order.out.where('')} was made with the secret key whose key id is {manifest.patient_key_id}, and {found}; "
            "name its key with --salt-file, or use another --out"
        )
    if manifest.plan_digest != request_digest(order.settings(), files, key):
        refuse_other(order.out, manifest, digest(order.recipe.preprocessing()), len(files))
    check_objects(order.out, manifest)
    named = order.pseudonyms.read_name_map(sources[0], manifest.plan_digest) if key else []
    notes = check_unchanged(order.out, manifest, sources, files, key=key, names=named)
    remove_scratch(order.out)
    parts = parts_of(read_rows(order.out, manifest, "catalog", ["key", "split", "patient", "source_sha256"]))
    quarantined, ignored, ignored_formats, unread = count_rows(order.out, manifest)
    return Outcome(
        manifest=manifest,
        quarantined=quarantined,
        ignored=ignored,
        ignored_formats=ignored_formats,
        unread=unread,
        seconds=time.monotonic() - start,
        already_published=True,
        parts=parts,
        notes=(*tell_parts(parts, order.split), *notes),
    )


def _prepared(order: Order, sources: tuple[Bucket, ...], files: Sequence[SourceFile], labels: Labels) -> Outcome:
    start = time.monotonic()
    planned = plan_of(order, sources, files, labels)
    plan = planned.plan
    record_inputs(order.out, order.settings(), files)
    request = request_digest(order.settings(), files, planned.names.key)
    notes = _write_name_map(order, sources, planned.files, request)
    job = Job(
        sources=sources,
        out=order.out,
        recipe=order.recipe,
        name=order.name,
        split=order.split,
        plan_digest=plan.digest,
    )
    run_rows(job, plan, order)
    markers = read_markers(order.out, plan.digest, (row.number for row in plan.rows))
    _write_name_map(order, sources, _with_hashes(planned.files, files, markers), request)
    title = Title(
        name=order.name,
        presentation=order.recipe.presentation,
        preprocessing=order.recipe.preprocessing(),
        plan_digest=request,
        num_files=len(files),
        patient_key_id=planned.names.key_id,
    )
    as_paths = partial(readable, files=planned.files)
    parts: dict[str, Part] = {}

    def check(rows: Sequence[dict[str, object]]) -> None:
        parts.update(parts_of(rows))
        check_parts(parts, order.split)

    bank = _bank(job, plan)
    manifest, quarantine = publish(order.out, title, markers, plan.refused, plan.ignored, bank, as_paths, check)
    remove_scratch(order.out)
    notes += tell_flagged(row for marker in markers for row in marker.catalog)
    outcome = _outcome(manifest, quarantine, planned, start)
    return replace(outcome, parts=parts, notes=(*tell_parts(parts, order.split), *planned.notes, *notes))


def _with_hashes(named: Sequence[NamedFile], files: Sequence[SourceFile], markers: Sequence[Marker]) -> list[NamedFile]:
    """The table of names with the hashes of all files that rows have read, for later comparison."""
    read = {(one.source, one.path): one.sha256 for marker in markers for one in marker.files}
    hashes = {file.uri: read.get((file.source, file.path), "") for file in files}
    return [replace(one, sha256=hashes[one.path]) for one in named]


def _write_name_map(order: Order, sources: Sequence[Bucket], files: Sequence[NamedFile], request: str) -> list[str]:
    """Write the table of hashed names, and say where it is."""
    if not files:
        return []
    place = order.pseudonyms.write_name_map(files, sources[0], order.out, request)
    return [f"names are hashed; the table of names is {place.where('')}"]


def _bank(job: Job, plan: Plan) -> Bank | None:
    """The bank of a volume recipe, with room for all that the plan reserved."""
    if not isinstance(job.recipe, VolumeRecipe):
        return None
    return Bank(path=job.bank_path, layout=job.recipe.layout, num_shards=plan.num_shards)


def _outcome(manifest: Manifest, quarantine: Sequence[Quarantined], planned: Planned, start: float) -> Outcome:
    return Outcome(
        manifest=manifest,
        quarantined=dict(sorted(Counter(one.rule for one in quarantine).items())),
        ignored=dict(sorted(Counter(one.rule for one in planned.plan.ignored).items())),
        ignored_formats=dict(sorted(Counter(one.format for one in planned.plan.ignored).items())),
        unread=planned.unread,
        seconds=time.monotonic() - start,
        notes=planned.notes,
    )
