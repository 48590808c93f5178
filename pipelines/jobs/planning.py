"""From listed files to a plan: labels, scan, label maps, names, and what the user should know before the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from crossdim.foundation.bars import write_lines
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.append import Earlier
from crossdim.pipelines.jobs.flagged_notes import tell_folder_modalities
from crossdim.pipelines.jobs.folder_labels import check_folder_labels
from crossdim.pipelines.jobs.items import Naming
from crossdim.pipelines.jobs.label_maps import describe_maps, find_named_maps, ignore_label_maps
from crossdim.pipelines.jobs.names import NamedFile, SourceNames, choose_names, holds_dicom, make_readable
from crossdim.pipelines.jobs.plan import Plan, make_plan
from crossdim.pipelines.jobs.preparation import Preparation
from crossdim.pipelines.jobs.recipe import RECIPE_FOR, Recipe, VolumeRecipe
from crossdim.pipelines.jobs.scan import scan
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.jobs.series_groups import group_series, series_id
from crossdim.pipelines.jobs.source_inputs import SourceInput, locate_unplanned
from crossdim.pipelines.jobs.splits import check_patients, tell_stated
from crossdim.pipelines.jobs.table_patients import tell_overridden
from crossdim.pipelines.jobs.unread import UnreadFormat, count_unread_formats, describe_unread
from crossdim.pipelines.publish import describe_refusals
from crossdim.pipelines.readers.registry import families_of, promised_family, reader_of_format
from crossdim.pipelines.readers.slice_order import place_of
from crossdim.pipelines.sources.folder_names import find_label, find_modality
from crossdim.pipelines.sources.ignored_names import match_ignored_name
from crossdim.pipelines.sources.label_matching import match_series, match_table
from crossdim.pipelines.sources.labels import Known, Labels
from crossdim.pipelines.sources.listing import SourceFile, folder_name
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.vocabulary import Modality


def _folders(sources: Sequence[Bucket]) -> list[str]:
    """The name of each source's own folder."""
    return [folder_name(source.url) for source in sources]


def find_labels(preparation: Preparation, sources: Sequence[Bucket], files: Sequence[SourceFile]) -> Labels:
    """Find what table and folders say about the files, and report how well they fit, before anything is scanned.

    Args:
        preparation: what the user asks for.
        sources: as folders.
        files: as listed.

    Returns:
        Labels and patients, by file and series.

    Raises:
        UsageError: for a table with faults, or one that names none of the files.
    """
    labels, folders = Labels(), _folders(sources)
    if preparation.label_table is not None:
        roots = [(source.url.rstrip("/"), source.root) for source in sources]
        maps = set() if preparation.include_label_maps else find_named_maps(files, sources)
        needing = [file for file in files if (file.source, file.path) not in maps and _may_be_read(file, preparation.recipe)]
        labels, messages = match_table(preparation.label_table, files, needing, folders, roots)
        write_lines(f"labels: {line}" for line in messages)
        patients = [known.patient_id if (known := labels.by_file.get((one.source, one.path))) else None for one in needing]
        if len(set(patients)) == 1 and patients[0] is not None:
            check_patients(patients, preparation.split)  # the table alone shows that no test part can be drawn
    if preparation.label_by_folder:
        named = {(file.source, file.path): find_label(file.path, folders[file.source]) for file in files if file.label is None}
        labels = labels.with_folders(named)
    return labels.with_stated({(file.source, file.path): file.label for file in files if file.label is not None})


def _may_be_read(file: SourceFile, recipe: Recipe) -> bool:
    """Whether a file's name is one of the recipe's formats, or of none, as DICOM files are often named."""
    families = families_of(recipe.reads)
    promise, ending = promised_family(file.path), file.path.rpartition("/")[2].rpartition(".")[2]
    says_nothing = "." not in file.path.rpartition("/")[2] or ending.isdigit()
    return match_ignored_name(file.path) is None and (promise in families or (promise is None and says_nothing))


def _build_naming(preparation: Preparation, sources: Sequence[Bucket], labels: Labels, names: SourceNames) -> Naming:
    """How files are named to labels and modality words, below the source's own folder name, and how in the dataset."""
    folders = _folders(sources)

    def known(files: Sequence[ScanResult]) -> Known:
        series = files[0].header.series if files[0].header else None
        places = [place_of(file.header.slice if file.header else None, number) for number, file in enumerate(files)]
        return labels.of([(file.source, file.path) for file in files], series, places)

    def modality(result: ScanResult) -> Modality:
        return preparation.modality or find_modality(result.path, folders[result.source])

    return Naming(known=known, modality=modality, names=names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A plan, the names of its inputs, what looks like images and is not read, and sentences that the user should know.

    Attributes:
        unplanned: some inputs that were refused or ignored (see :func:`locate_unplanned`).
    """

    plan: Plan
    unread: dict[str, UnreadFormat]
    names: SourceNames
    files: tuple[NamedFile, ...]
    notes: tuple[str, ...]
    unplanned: dict[str, SourceInput]


def scan_and_plan(
    preparation: Preparation,
    sources: Sequence[Bucket],
    files: Sequence[SourceFile],
    labels: Labels,
    *,
    store_key: bool = True,
    earlier: Earlier | None = None,
) -> Planned:
    """Scan the sources and plan the tasks.

    Args:
        preparation: what the user asks for.
        sources: as folders.
        files: as listed.
        labels: of the files.
        store_key: whether a secret key that is made here is stored; without one, inputs are planned under a key that is lost.
        earlier: the version of the dataset that is added to, whose samples are not made again.

    Returns:
        The plan, the names of its inputs, and sentences that the user should read.

    Raises:
        StorageError: if the recipe can read nothing in them.
        UsageError: if no row of the table of labels names an input.
    """
    results = scan(files, sources, preparation.recipe.read, concurrency=preparation.concurrency, quiet=preparation.quiet)
    if not preparation.include_label_maps:
        results = ignore_label_maps(
            results, sources, preparation.recipe, concurrency=preparation.concurrency, quiet=preparation.quiet
        )
    if preparation.label_table is not None:
        series = [one.series for one in group_series(results) if one.series]
        write_lines(f"labels: {line}" for line in match_series(preparation.label_table, labels, series))
    maps = None if preparation.include_label_maps else describe_maps(results)
    write_lines([maps] if maps else [])
    names = choose_names(
        results,
        preparation.pseudonyms.names,
        has_patients=labels.names_patients,
        load_key=lambda: preparation.pseudonyms.draft_key(sources[0]),
    )
    planned = _plan_under(names, preparation, sources, files, labels, results, earlier)
    if names.key is None or not store_key:
        return planned
    # Stored only now that nothing is left to refuse; of preparations at one time, all take the key of the first.
    key = preparation.pseudonyms.load_key(sources[0], preparation.out, names.key)
    if key == names.key:
        return planned
    return _plan_under(replace(names, key=key), preparation, sources, files, labels, results, earlier)


def _plan_under(
    names: SourceNames,
    preparation: Preparation,
    sources: Sequence[Bucket],
    files: Sequence[SourceFile],
    labels: Labels,
    results: Sequence[ScanResult],
    earlier: Earlier | None,
) -> Planned:
    """The plan under these names, unless there is something to refuse."""
    identity: dict[str, object] = {"name": preparation.name, "split": asdict(preparation.split), "patient_key_id": names.key_id}
    published, recipe = names.publish(results), preparation.recipe
    naming = _build_naming(preparation, sources, labels, names)
    if earlier is None:
        plan = make_plan(published, recipe, naming, identity)
    else:
        first, identity = earlier.find_first_shard(recipe), identity | earlier.identity()
        plan = make_plan(published, recipe, naming, identity, choose=earlier.choose, first_shard=first)
    named = _name_files(results, names, preparation.recipe)
    unread = count_unread_formats(results)
    if not plan.items:
        ignored = Counter(one.rule for one in plan.ignored)
        where = ", ".join(source.where("") for source in preparation.sources)
        wanted = ", ".join(sorted(preparation.recipe.formats))
        maps = None if preparation.include_label_maps else describe_maps(results)
        sentences = [
            f"nothing to prepare among {count(len(files), 'file')} of {where}; the recipe reads {wanted}",
            maps if maps and not plan.refused else make_readable(describe_refusals(plan.refused), named),
            describe_unread(unread) if unread else "",
            describe_other_recipe(preparation.recipe, results),
            "; ".join(f"ignored as {rule}: {number}" for rule, number in ignored.items()),
        ]
        raise StorageError(". ".join(sentence.rstrip(".") for sentence in sentences if sentence))
    items = plan.items
    drawn = [item.patient for item in items if item.split is None]
    notes = check_patients(drawn, preparation.split) if drawn else []
    notes += tell_stated(items)
    if preparation.label_by_folder:
        notes += check_folder_labels(items, results)
    if labels.names_patients:
        notes += tell_overridden(items, results, names)
    if preparation.pseudonyms.names == "relative" and any(map(holds_dicom, results)):
        notes.append("names of DICOM files and folders are published readable (--source-names relative); they may name patients")
    if preparation.modality is None:
        notes += tell_folder_modalities(items, results)
    annotated = sum(item.burned_in_annotation for item in items)
    if annotated:
        notes.append(
            f"{annotated} of {count(len(items), 'input')} say that text is burned into their pixels; "
            "--burned-in refuse leaves them out"
        )
    unplanned = locate_unplanned(plan, published, names, recipe.read)
    return Planned(plan=plan, unread=unread, names=names, files=named, notes=tuple(notes), unplanned=unplanned)


def _name_files(results: Sequence[ScanResult], names: SourceNames, recipe: Recipe) -> tuple[NamedFile, ...]:
    """Every file of sources whose names are hashed, with its path and its names in the dataset."""
    found = []
    for result in results:
        if result.source in names.hashed:
            series = series_id(result) if isinstance(recipe, VolumeRecipe) else None
            series_name = names.name_series(series, [result]) if series else ""
            found.append(NamedFile(path=result.uri, name=names.name_file(result), series=series_name, version=result.version))
    return tuple(found)


def describe_other_recipe(recipe: Recipe, results: Sequence[ScanResult]) -> str:
    """Describe which recipe reads the files that this one does not.

    Args:
        recipe: the chosen one.
        results: of the scan.

    Returns:
        A sentence; empty if no other recipe reads them.
    """
    found = Counter(result.header.format for result in results if result.header and result.header.format not in recipe.formats)
    named = Counter[str]()
    for name, number in found.items():
        named[RECIPE_FOR[reader_of_format(name).kind]] += number
    return "; ".join(f"--recipe {name} reads {number} of them" for name, number in named.most_common())
