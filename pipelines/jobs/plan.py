"""Plan: which inputs become which output object, decided before anything is decoded.

A plan is a list of tasks; only its own task writes an object. A plan depends on the inputs and the recipe only, so all runs with
the same digest write the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from crossdim.foundation.settings import to_document
from crossdim.pipelines.jobs.names import SourceNames
from crossdim.pipelines.jobs.recipe import ImageRecipe, Recipe, VolumeRecipe
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.jobs.series_groups import (
    Folder,
    find_continued_series,
    find_split_series,
    find_unreadable,
    group_series,
    note_of_series,
)
from crossdim.pipelines.quarantine import Ignored, Quarantined, Step, apply_steps
from crossdim.pipelines.readers.dicom import check_single, common_modality
from crossdim.pipelines.readers.geometry import one_per_position, stack_slices
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import ReadRules, number_files
from crossdim.pipelines.readers.reader import Reader
from crossdim.pipelines.readers.registry import families_of, promised_family, readers_of
from crossdim.pipelines.sources.labels import Known
from crossdim.pipelines.stages.modality import ModalityStage
from crossdim.storage_schema.digest import digest
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.vocabulary import Modality

#: Of the plan and of the code's reading of it: a new number makes old scratch markers strangers.
PLAN_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemFile:
    """One file of an item: where it is read, its name in the dataset, and its version in the listing."""

    source: int
    path: str
    uri: str
    size: int
    version: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One input: a file or a series, how it is decoded, the values that headers promise, the boxes reserved for it.

    Attributes:
        uri: its name in the dataset.
        patient: hashed with the dataset's key.
        burned_in_annotation: whether a header says that text is burned into the pixels.
        note: what the plan has to say of it in the catalog.
    """

    uri: str
    files: tuple[ItemFile, ...]
    decoder: str
    modality: Modality
    label: str | None = None
    patient: str | None = None
    num_values: int = 0
    boxes: int = 0
    burned_in_annotation: bool = False
    note: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What one task does: items, and the first bank shard that is theirs."""

    number: int
    items: tuple[Item, ...]
    first_shard: int = 0
    num_shards: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All tasks, the inputs refused by their headers, and the files that are no inputs."""

    tasks: tuple[Task, ...]
    refused: tuple[Quarantined, ...]
    ignored: tuple[Ignored, ...] = ()
    digest: str

    @property
    def num_items(self) -> int:
        """Number of inputs."""
        return sum(len(task.items) for task in self.tasks)

    @property
    def num_shards(self) -> int:
        """Number of bank shards that the tasks reserve."""
        return self.tasks[-1].first_shard + self.tasks[-1].num_shards if self.tasks else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Naming:
    """Label and patient of an input, its modality where no header states one, and its name in the dataset."""

    names: SourceNames = field(default_factory=SourceNames)
    known: Callable[[Sequence[ScanResult]], Known]
    modality: Callable[[ScanResult], Modality]

    def build_item(self, uri: str, files: Sequence[ScanResult], decoder: str) -> Item:
        """Build the item of these files; the modality is that of the first.

        Args:
            uri: name of the input in the dataset.
            files: of the input.
            decoder: name of the reader.

        Returns:
            The item, with label and hashed patient.

        Raises:
            SampleError: if the files do not agree on their label or patient.
        """
        first, known = files[0], self.known(files)
        patient = known.patient_id or (first.header.patient_id if first.header else None)
        return Item(
            uri=uri,
            files=tuple(ItemFile(source=f.source, path=f.path, uri=f.uri, size=f.size, version=f.version) for f in files),
            decoder=decoder,
            modality=self.modality(first),
            label=known.label,
            patient=self.names.patient(patient) if patient else None,
            burned_in_annotation=any(f.header is not None and f.header.burned_in_annotation for f in files),
            num_values=sum(math.prod(f.header.shape) for f in files if f.header),
        )


def make_plan(results: Sequence[ScanResult], recipe: Recipe, naming: Naming, identity: dict[str, object]) -> Plan:
    """Decide what happens to every file.

    Args:
        results: of the scan, sorted.
        recipe: the recipe.
        naming: labels, patients and modalities.
        identity: what else decides the bytes (the dataset's name, the test fraction).

    Returns:
        Tasks, refused inputs and ignored files, with a digest of them all.
    """
    usable, refused, ignored = sort_results(results, recipe)
    if isinstance(recipe, ImageRecipe):
        tasks, more = pack_images(usable, recipe, naming)
    else:
        items, more = build_volume_items(usable, recipe, naming, find_unreadable(results))
        tasks = pack_volumes(items, recipe)
    refused += more
    refused.sort(key=lambda one: one.uri)
    document = {
        "version": PLAN_VERSION,
        "recipe": to_document(recipe),
        "identity": identity,
        "rows": [_build_identity(task) for task in tasks],
        "refused": [one.row() for one in refused],
        "ignored": [one.row() for one in ignored],
    }
    return Plan(tasks=tuple(tasks), refused=tuple(refused), ignored=tuple(ignored), digest=digest(document))


def sort_results(results: Sequence[ScanResult], recipe: Recipe) -> tuple[list[ScanResult], list[Quarantined], list[Ignored]]:
    """Divide the scan results by what the recipe can do with them.

    Args:
        results: of the scan.
        recipe: the recipe.

    Returns:
        Files that the recipe reads, files of its kind that are damaged, and all others.
    """
    families = families_of(recipe.reads)
    usable: list[ScanResult] = []
    refused: list[Quarantined] = []
    ignored: list[Ignored] = []
    for result in results:
        if result.status == "ok" and result.header and result.header.format in recipe.formats:
            usable.append(result)
        elif result.status == "refused" and promised_family(result.path) in {*families, None}:
            refused.append(result.to_quarantined())
        elif result.status == "ignored":
            ignored.append(result.to_ignored())
        else:
            broken = f"; besides, {result.reason} [{result.rule}]" if result.reason else ""
            reason = f"the recipe reads {', '.join(sorted(recipe.formats))}{broken}"
            ignored.append(Ignored(uri=result.uri, format=result.format, rule="not_for_recipe", reason=reason))
    return usable, refused, ignored


def _build_identity(task: Task) -> dict[str, Any]:
    """A task as the digest covers it.

    Without paths beside hashed names, which a digest over them would let anybody guess, and without versions, which differ in a
    copy
    of the sources.
    """
    document: dict[str, Any] = to_document(task)
    for item in document["items"]:
        if item["note"] is None:
            del item["note"]  # plans without notes keep the digests that they had before notes existed
        for file in item["files"]:
            del file["path"], file["version"]
    return document


def check_annotation(files: Sequence[ScanResult], rules: ReadRules) -> Sequence[ScanResult]:
    """Refuse an input with text burned into its pixels, if the recipe does.

    Args:
        files: of the input.
        rules: of the recipe.

    Returns:
        ``files``.

    Raises:
        SampleError: rule ``burned_in``.
    """
    annotated = sum(file.header is not None and bool(file.header.burned_in_annotation) for file in files)
    if annotated and rules.burned_in == "refuse":
        raise SampleError("burned_in", f"BurnedInAnnotation is YES in {annotated} of {len(files)} files; --burned-in refuse")
    return files


def check_modality(files: Sequence[ScanResult], wanted: ModalityStage, naming: Naming) -> Sequence[ScanResult]:
    """Refuse an input of a modality that is not wanted: what headers state counts, else what options and folders say.

    Args:
        files: of one input.
        wanted: the recipe's modalities.
        naming: what options and folders say.

    Returns:
        ``files``.

    Raises:
        SampleError: rule ``modality`` or ``mixed_modality``, as the decoder's sample would be refused.
    """
    stated = common_modality([file.header.modality if file.header else None for file in files])
    wanted.check(stated or naming.modality(files[0]))
    return files


def pack_images(usable: Sequence[ScanResult], recipe: ImageRecipe, naming: Naming) -> tuple[list[Task], list[Quarantined]]:
    """Pack images in order into tasks, until a shard is full; those whose labels do not agree are refused.

    Args:
        usable: files that the recipe reads, sorted.
        recipe: with the size of a shard.
        naming: labels, patients and modalities.

    Returns:
        One task per shard, and the refused images.
    """
    packs: list[list[Item]] = []
    refused: list[Quarantined] = []
    num_bytes = 0
    for result in usable:
        assert result.header is not None
        make = partial(_build_image_item, info=result.header, recipe=recipe, naming=naming)
        planned = apply_steps(result.uri, [result], [("plan", partial(check_annotation, rules=recipe.read)), ("plan", make)])
        if isinstance(planned, Quarantined):
            refused.append(planned)
            continue
        item, size = planned
        if not packs or len(packs[-1]) >= recipe.shard.max_samples or num_bytes + size > recipe.shard.target_bytes:
            packs.append([])
            num_bytes = 0
        packs[-1].append(item)
        num_bytes += size
    return [Task(number=number, items=tuple(pack), first_shard=number) for number, pack in enumerate(packs)], refused


def _build_image_item(files: Sequence[ScanResult], info: HeaderInfo, recipe: ImageRecipe, naming: Naming) -> tuple[Item, int]:
    """The item of an image file, and about how many bytes its sample has."""
    reader = next(one for one in readers_of("image") if one.format_name == info.format)
    return naming.build_item(files[0].uri, files, reader.name), recipe.estimate_bytes(info)


def build_volume_items(
    usable: Sequence[ScanResult], recipe: VolumeRecipe, naming: Naming, unreadable: frozenset[Folder] = frozenset()
) -> tuple[list[Item], list[Quarantined]]:
    """Build the items of all volumes, with reserved boxes; what headers alone rule out is refused.

    Args:
        usable: files that the recipe reads.
        recipe: the recipe.
        naming: labels, patients and modalities.
        unreadable: folders of files that may be slices and cannot be read.

    Returns:
        The items, sorted by name, and the refused inputs.
    """
    inputs = [one for reader in readers_of("volume") for one in _group_inputs(reader, usable, naming, unreadable)]
    items: list[Item] = []
    refused: list[Quarantined] = []
    for one in sorted(inputs, key=lambda one: one.uri):
        uri, files = one.uri, one.files
        make = partial(_build_volume_item, uri=uri, decoder=one.decoder, note=one.note, recipe=recipe, naming=naming)
        wanted = recipe.modality_stage
        steps: list[Step] = [
            ("plan", partial(_check_fault, fault=one.fault)),
            ("plan", partial(check_annotation, rules=recipe.read)),
            (wanted.name, partial(check_modality, wanted=wanted, naming=naming)),
            ("plan", make),
        ]
        item = apply_steps(uri, files, steps, [file.uri for file in files])
        if isinstance(item, Quarantined):
            refused.append(replace(item, num_files=len(files)))
        else:
            items.append(item)
    return items, refused


@dataclass(frozen=True, kw_only=True, slots=True)
class _Input:
    """Files that one reader takes together, what is wrong with their belonging together, and what is to be noted of them."""

    uri: str
    files: Sequence[ScanResult]
    decoder: str
    fault: SampleError | None = None
    note: str | None = None


def _group_inputs(reader: Reader, usable: Sequence[ScanResult], naming: Naming, unreadable: frozenset[Folder]) -> list[_Input]:
    """The inputs of one reader."""
    files = [one for one in usable if one.header and one.header.format == reader.format_name]
    if reader.grouping == "file":
        return [_Input(uri=one.uri, files=[one], decoder=reader.name) for one in files]
    series = group_series(files)
    split, continued = find_split_series(series), find_continued_series(series)
    return [
        _Input(
            uri=naming.names.name_series(key, members),
            files=members,
            decoder=reader.name,
            fault=split.get(key),
            note=note_of_series(members, unreadable, continued=key in continued),
        )
        for key, members in series.items()
    ]


def _check_fault(files: Sequence[ScanResult], fault: SampleError | None) -> Sequence[ScanResult]:
    if fault is not None:
        raise fault
    return files


def _build_volume_item(
    files: Sequence[ScanResult], uri: str, decoder: str, note: str | None, recipe: VolumeRecipe, naming: Naming
) -> Item:
    boxes = recipe.boxes(*_grid(files))
    return replace(naming.build_item(uri, files, decoder), boxes=boxes, note=note)


def _grid(files: Sequence[ScanResult]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape (D, H, W) and spacing of a volume, by its headers."""
    headers = [result.header.slice for result in files if result.header and result.header.slice]
    if not headers:
        info = files[0].header
        assert info is not None
        assert info.spacing_mm is not None
        return info.shape, info.spacing_mm
    for number, header in enumerate(headers):
        with number_files([number]):
            check_single(header)
    numbers = one_per_position(headers)  # equal files count once; the decoder refuses files of one position that differ
    if len({file.size for file in files}) == len(files):
        numbers = list(range(len(headers)))  # no two of them are equal
    with number_files(numbers):
        geometry = stack_slices([headers[number] for number in numbers])
    return geometry.shape, geometry.spacing_mm


def pack_volumes(items: Sequence[Item], recipe: VolumeRecipe) -> list[Task]:
    """Pack whole volumes in order into tasks, until their boxes fill one bank shard; a larger volume has a task of its own.

    Args:
        items: sorted.
        recipe: with the size of a shard.

    Returns:
        The tasks, each with its first shard and number of shards.
    """
    packs: list[list[Item]] = []
    boxes = 0
    for item in items:
        if not packs or boxes + item.boxes > recipe.patches_per_shard:
            packs.append([])
            boxes = 0
        packs[-1].append(item)
        boxes += item.boxes
    tasks: list[Task] = []
    first = 0
    for number, pack in enumerate(packs):
        num_shards = max(1, -(-sum(item.boxes for item in pack) // recipe.patches_per_shard))
        tasks.append(Task(number=number, items=tuple(pack), first_shard=first, num_shards=num_shards))
        first += num_shards
    return tasks
