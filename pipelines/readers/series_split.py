"""Split a DICOM series into volumes: by orientation and size, and where slices share positions, by what else they state.

1. Slices that differ in orientation, or in rows and columns, are never one volume: each such group is one. A group of one or two
   slices is a scout if ImageType says LOCALIZER; otherwise their headers are in doubt, and the series stays whole, to be refused.
2. Where several slices lie at one position, the volumes are told by one of :class:`VolumeTags`, or by two or three together: the
   first choice, in the order below, that gives volumes of which each has all positions once.
3. If none does and every position has as many slices, the slices of a position are taken in the order of InstanceNumber.
4. If positions have different numbers of slices, as in a series that was broken off, the first choice that gives at least one
   complete volume; incomplete ones are told.

A series that none of this splits stays whole, as does one with a single position: its slices are refused as ``repeated_position``
where they differ. The rules are ours; dicom2nifti and dcm2niix split by time and by the same elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.slice_order import COSINE_TOLERANCE, place_of

#: Tags in the order in which they are tried, with the word that a part is called by, and the element that is noted.
TAGS = {
    "component": ("component", "ComplexImageComponent"),
    "echo_ms": ("echo", "EchoTime"),
    "temporal_position": ("time", "TemporalPositionIdentifier"),
    "b_value": ("b-value", "DiffusionBValue"),
    "gradient": ("direction", "DiffusionGradientOrientation"),
    "trigger_ms": ("trigger", "TriggerTime"),
    "acquisition": ("acquisition", "AcquisitionNumber"),
    "acquired_s": ("time", "AcquisitionTime"),
}
_RANK = ("time", "InstanceNumber")
_GRID = ("ImageOrientationPatient", "Rows", "Columns")
#: A group of so few slices is no volume of its own. Ours.
MAX_SCOUT_SLICES = 2
#: So many tags may tell volumes together: as time, echo and component.
_MAX_TAGS = 3

Groups = Mapping[Hashable, Sequence[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One volume of a series.

    Attributes:
        numbers: of its slices in the series.
        name: of ours, such as ``echo-2``; empty where the series is one volume.
        elements: by which it was told from the others, as keywords of DICOM or what stands for them.
        missing: positions of its series that it lacks.
    """

    numbers: tuple[int, ...]
    name: str = ""
    elements: tuple[str, ...] = ()
    missing: int = 0


def split_series(headers: Sequence[SliceHeader]) -> list[Part]:
    """Split a series.

    Args:
        headers: of its slices, in any order.

    Returns:
        The parts, with all slices between them; one part where nothing splits the series.
    """
    grids = _group_grids(headers)
    if any(len(numbers) <= MAX_SCOUT_SLICES and not _is_scout(headers, numbers) for numbers in grids):
        grids = [list(range(len(headers)))]
    parts = []
    for place, numbers in enumerate(grids, 1):
        prefix, elements = ([f"orientation-{place}"], _GRID) if len(grids) > 1 else ([], ())
        for part in _split_positions([headers[number] for number in numbers]):
            chosen = tuple(numbers[one] for one in part.numbers)
            name = "-".join([*prefix, part.name] if part.name else prefix)
            parts.append(replace(part, numbers=chosen, name=name, elements=(*elements, *part.elements)))
    return parts


def _group_grids(headers: Sequence[SliceHeader]) -> list[list[int]]:
    """Slices of one orientation, rows and columns; a slice that states no orientation is with the first."""
    groups: list[tuple[tuple[int, int], np.ndarray, list[int]]] = []
    for number, header in enumerate(headers):
        size = (header.rows, header.columns)
        stated = np.array(header.orientation if header.orientation is not None else [np.nan] * 6)
        for known_size, known, numbers in groups:
            if known_size == size and not (np.abs(known - stated) > COSINE_TOLERANCE).any():
                numbers.append(number)
                break
        else:
            groups.append((size, stated, [number]))
    return [numbers for _, _, numbers in sorted(groups, key=lambda group: -len(group[2]))]


def _is_scout(headers: Sequence[SliceHeader], numbers: Sequence[int]) -> bool:
    return all(headers[number].localizer for number in numbers)


def _split_positions(headers: Sequence[SliceHeader]) -> list[Part]:
    """Split slices of one orientation and size; what may be copies of one slice, by place and tags, is in one part."""
    alike: dict[Hashable, list[int]] = {}
    for number, header in enumerate(headers):
        alike.setdefault((place_of(header, number), header.tags), []).append(number)
    copies = list(alike.values())
    parts = _split_distinct([headers[numbers[0]] for numbers in copies])
    return [replace(part, numbers=tuple(sorted(one for number in part.numbers for one in copies[number]))) for part in parts]


def _split_distinct(headers: Sequence[SliceHeader]) -> list[Part]:
    places = [place_of(header, number) for number, header in enumerate(headers)]
    counts = Counter(places)
    if max(counts.values()) == 1 or len(counts) == 1:
        return [Part(numbers=tuple(range(len(headers))))]
    choices = list(_list_choices(headers, places))
    complete = next(((told, groups) for told, groups in choices if _is_complete(groups, len(counts))), None)
    if complete is None and len(set(counts.values())) == 1:
        groups = _rank(headers, places)
        complete = ([_RANK], groups) if groups else None
    if complete is None:
        complete = next(((told, groups) for told, groups in choices if _holds_complete(groups, len(counts))), None)
    if complete is None:
        return [Part(numbers=tuple(range(len(headers))))]
    told, groups = complete
    name = "-".join(dict.fromkeys(word for word, _ in told))
    width = len(str(len(groups)))
    return [
        Part(
            numbers=tuple(groups[key]),
            name=f"{name}-{place:0{width}d}",
            elements=tuple(element for _, element in told),
            missing=len(counts) - len(groups[key]),
        )
        for place, key in enumerate(_sort(groups), 1)
    ]


def _list_choices(headers: Sequence[SliceHeader], places: Sequence[Hashable]) -> Iterator[tuple[list[tuple[str, str]], Groups]]:
    """Groups by one tag, by two, by three, in which no position is there twice, with word and element of each tag."""
    values = {tag: [getattr(header.tags, tag) for header in headers] for tag in TAGS}
    varying = [tag for tag in TAGS if len(set(values[tag])) > 1]
    for count in range(1, _MAX_TAGS + 1):
        for chosen in combinations(varying, count):
            groups: dict[Hashable, list[int]] = {}
            for number, key in enumerate(zip(*(values[tag] for tag in chosen), strict=True)):
                groups.setdefault(key, []).append(number)
            if all(len({places[number] for number in numbers}) == len(numbers) for numbers in groups.values()):
                yield [TAGS[tag] for tag in chosen], groups


def _is_complete(groups: Groups, num_positions: int) -> bool:
    """Whether each group, in which no position is there twice, has all of them."""
    return all(len(numbers) == num_positions for numbers in groups.values())


def _holds_complete(groups: Groups, num_positions: int) -> bool:
    """Whether most slices are in groups that have all positions: one slice that was taken again leaves the others a volume."""
    whole = sum(len(numbers) for numbers in groups.values() if len(numbers) == num_positions)
    return 2 * whole > sum(len(numbers) for numbers in groups.values())


def _rank(headers: Sequence[SliceHeader], places: Sequence[Hashable]) -> Groups | None:
    """The first slices of all positions by InstanceNumber, the second ones, and so on; None where these do not order them."""
    at: dict[Hashable, list[int]] = {}
    for number, place in enumerate(places):
        at.setdefault(place, []).append(number)
    groups: dict[Hashable, list[int]] = {}
    for numbers in at.values():
        instances = [headers[number].tags.instance for number in numbers]
        if None in instances or len(set(instances)) < len(instances):
            return None
        for rank, number in enumerate(sorted(numbers, key=lambda one: headers[one].tags.instance or 0)):
            groups.setdefault(rank, []).append(number)
    return groups


def _sort(groups: Groups) -> list[Hashable]:
    """Keys in order; what is not stated comes first."""
    return sorted(groups, key=lambda key: [(one is not None, one) for one in key] if isinstance(key, tuple) else [(True, key)])
