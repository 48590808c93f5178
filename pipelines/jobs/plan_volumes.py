"""Volumes from files and series, and packed into tasks with reserved boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from crossdim.pipelines.jobs.items import Item, Naming, Task, check_annotation
from crossdim.pipelines.jobs.recipe import VolumeRecipe
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.jobs.series_groups import (
    Folder,
    find_continued_series,
    find_split_series,
    group_series,
    note_of_series,
)
from crossdim.pipelines.jobs.series_volumes import split_into_volumes
from crossdim.pipelines.quarantine import Quarantined, Step, apply_steps
from crossdim.pipelines.readers.dicom import check_single, common_modality
from crossdim.pipelines.readers.raw import ReadRules, TiltRule, number_files
from crossdim.pipelines.readers.reader import Reader
from crossdim.pipelines.readers.registry import readers_of
from crossdim.pipelines.readers.slice_order import one_per_position, place_of, stack_slices
from crossdim.pipelines.stages.modality import ModalityStage
from crossdim.storage_schema.errors import SampleError


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
    inputs = [one for reader in readers_of("volume") for one in _group_inputs(reader, usable, naming, unreadable, recipe.read)]
    items: list[Item] = []
    refused: list[Quarantined] = []
    for one in sorted(inputs, key=lambda one: one.uri):
        uri, files = one.uri, one.files
        make = partial(_build_volume_item, one=one, recipe=recipe, naming=naming)
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
    """Files that one reader takes together, what is wrong with their belonging together, and what is to be noted of them.

    ``patient`` stands for a patient who is not known: volumes of one series belong to the same split.
    """

    uri: str
    files: Sequence[ScanResult]
    decoder: str
    fault: SampleError | None = None
    note: str | None = None
    patient: str | None = None


def _group_inputs(
    reader: Reader, usable: Sequence[ScanResult], naming: Naming, unreadable: frozenset[Folder], rules: ReadRules
) -> list[_Input]:
    """The inputs of one reader."""
    files = [one for one in usable if one.header and one.header.format == reader.format_name and reader.accepts(one.header)]
    if reader.grouping == "file":
        counts = Counter(_series_of(one) for one in files)
        return [
            _Input(
                uri=one.uri,
                files=[one],
                decoder=reader.name,
                patient=naming.names.patient("".join(_series_of(one))) if counts[_series_of(one)] > 1 else None,
            )
            for one in files
        ]
    series = group_series(files)
    split, continued = find_split_series(series), find_continued_series(series)
    inputs = []
    for key, members in series.items():
        uri = naming.names.name_series(key, members)
        volumes = split_into_volumes(members, replace(rules, gaps="refuse") if key in split else rules)
        is_continued = key in continued
        inputs += [
            _Input(
                uri=volume.uri(uri),
                files=volume.files,
                decoder=reader.name,
                fault=split.get(key) or volume.fault,
                note=note_of_series(volume.files, unreadable, continued=is_continued, split=volume.notes),
                patient=naming.names.patient(uri) if len(volumes) > 1 else None,
            )
            for volume in volumes
        ]
    return inputs


def _series_of(one: ScanResult) -> tuple[str, str]:
    """The series that a file with a whole volume is of; the file itself where its header names none."""
    info = one.header
    return (info.study, info.series) if info and info.series else ("", one.uri)


def _check_fault(files: Sequence[ScanResult], fault: SampleError | None) -> Sequence[ScanResult]:
    if fault is not None:
        raise fault
    return files


def _build_volume_item(files: Sequence[ScanResult], one: _Input, recipe: VolumeRecipe, naming: Naming) -> Item:
    boxes = recipe.boxes(*_grid(files, recipe.read.tilt))
    item = naming.build_item(one.uri, files, one.decoder)
    return replace(item, boxes=boxes, note=one.note or item.note, patient=item.patient or one.patient)


def _grid(files: Sequence[ScanResult], tilt: TiltRule) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape (D, H, W) and spacing of a volume, by its headers."""
    headers = [result.header.slice for result in files if result.header and result.header.slice]
    info = files[0].header
    assert info is not None
    if info.affine is not None or not headers:
        assert info.spacing_mm is not None
        if info.slice:
            check_single(replace(info.slice, frames=1, mosaic=False))
        return info.shape, info.spacing_mm
    for number, header in enumerate(headers):
        with number_files([number]):
            check_single(header)
    numbers = one_per_position(headers)  # copies count once; the decoder refuses files of one position that differ
    if len({(place_of(header, number), header.tags) for number, header in enumerate(headers)}) > len(numbers):
        numbers = list(range(len(headers)))  # two of one position are told apart by their headers
    with number_files(numbers):
        geometry = stack_slices([headers[number] for number in numbers], tilt=tilt)
    return geometry.shape, geometry.spacing_mm


def pack_volumes(items: Sequence[Item], recipe: VolumeRecipe, first_shard: int = 0) -> list[Task]:
    """Pack whole volumes in order into tasks, until their boxes fill one bank shard; a larger volume has a task of its own.

    Args:
        items: sorted.
        recipe: with the size of a shard.
        first_shard: number of the first shard.

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
    first = first_shard
    for number, pack in enumerate(packs):
        num_shards = max(1, -(-sum(item.boxes for item in pack) // recipe.patches_per_shard))
        tasks.append(Task(number=number, items=tuple(pack), first_shard=first, num_shards=num_shards))
        first += num_shards
    return tasks
