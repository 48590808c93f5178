"""Slices grouped by the series that their headers name, and series that contradictory headers have split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from crossdim.pipelines.jobs.names import SeriesId
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.interleaved import find_continued, find_interleaved
from crossdim.pipelines.readers.registry import READERS, promised_family
from crossdim.storage_schema.errors import SampleError

#: In the catalog: whether a file that cannot be read was a slice, and of which series, nobody can know.
LACKS_SLICES = "files beside its slices cannot be read, so that it may lack some at its ends"

CONTINUED = "slices of the same series UID under another patient or study continue it"

#: The number of a source, and a folder in it.
Folder = tuple[int, str]


def find_unreadable(results: Sequence[ScanResult]) -> frozenset[Folder]:
    """Folders with files that cannot be read and may be slices.

    They are DICOM by content or name, or no name says what they are; an empty one is ignored, unless it is called as slices are.
    """
    families = {one.family_name for one in READERS.values() if one.grouping == "series"}
    names = {_pattern(one) for one in results if series_id(one) is not None}
    return frozenset(
        _folder(one)
        for one in results
        if (one.status == "refused" and (one.is_dicom or promised_family(one.path) in {*families, None}))
        or (one.status == "ignored" and one.size == 0 and _pattern(one) in names)
    )


def _pattern(result: ScanResult) -> tuple[int, str]:
    """The path of a file, with any number in its name as one."""
    folder, _, name = result.path.rpartition("/")
    return result.source, f"{folder}/{re.sub('[0-9]+', '0', name)}"


def note_of_series(
    files: Sequence[ScanResult], unreadable: frozenset[Folder], *, continued: bool = False, split: Sequence[str] = ()
) -> str | None:
    """Note a series that may lack slices. A slice missing inside makes it uneven; one missing at its end would not be noticed.

    Args:
        files: its slices.
        unreadable: from :func:`find_unreadable`. Where each slice has a folder of its own, the folders above them count.
        continued: whether another series continues it, see :func:`find_continued_series`.
        split: notes of the volume that these slices are of the series.

    Returns:
        The notes, joined by semicolons; None if there are none.
    """
    folders = {_folder(one) for one in files}
    alone = len(folders) == len(files)
    above = {(source, path.rpartition("/")[0]) for source, path in folders} if alone else set()
    lacks = folders & unreadable or above & {(source, path.rpartition("/")[0]) for source, path in unreadable}
    return "; ".join([*[LACKS_SLICES] * bool(lacks), *[CONTINUED] * continued, *split]) or None


def _folder(result: ScanResult) -> Folder:
    return result.source, result.path.rpartition("/")[0]


def series_id(result: ScanResult) -> SeriesId | None:
    """The series of a slice: by UIDs and patient wherever it lies, by folder only where there is no series UID.

    None for a file of a format whose inputs are single files.
    """
    info = result.header
    if info is None or not any(
        one.format_name == info.format and one.grouping == "series" and one.accepts(info) for one in READERS.values()
    ):
        return None
    source, folder = _folder(result)
    place = "" if info.series else f"{source}:{folder}"
    return SeriesId(study=info.study, series=info.series, patient=info.patient_id or "", place=place)


def group_series(usable: Iterable[ScanResult]) -> dict[SeriesId, list[ScanResult]]:
    """Slices by series."""
    series: dict[SeriesId, list[ScanResult]] = {}
    for result in usable:
        key = series_id(result)
        if key is not None:
            series.setdefault(key, []).append(result)
    return series


def find_split_series(series: Mapping[SeriesId, Sequence[ScanResult]]) -> dict[SeriesId, SampleError]:
    """Series that are parts of one scan: one series UID (or folder) under several patients or studies, interleaved.

    Each part may be an even stack, of twice the spacing; it is no volume that anybody scanned. Several patients of one
    SeriesInstanceUID, as some anonymised data has them, lie beside or over each other and stay what they are.

    Args:
        series: the slices of each.

    Returns:
        The refusal of each part, rule ``split_series``.
    """
    refused: dict[SeriesId, SampleError] = {}
    for members, stacks in _group_by_uid(series):
        for parts in find_interleaved(stacks):
            refused |= dict.fromkeys((members[part] for part in parts), _refusal([members[part] for part in parts]))
    return refused


def find_continued_series(series: Mapping[SeriesId, Sequence[ScanResult]]) -> set[SeriesId]:
    """Series that begin where another of their UID, of another patient or study, ends: two volumes, and perhaps one person.

    Args:
        series: the slices of each.
    """
    return {members[part] for members, stacks in _group_by_uid(series) for part in find_continued(stacks)}


def _group_by_uid(
    series: Mapping[SeriesId, Sequence[ScanResult]],
) -> Iterator[tuple[list[SeriesId], list[list[SliceHeader]]]]:
    """Series that share their SeriesInstanceUID, or their folder where they have none, and the headers of their slices."""
    by_uid: dict[tuple[str, str], list[SeriesId]] = {}
    for one in series:
        by_uid.setdefault((one.series, one.place), []).append(one)
    for members in by_uid.values():
        yield members, [[file.header.slice for file in series[one] if file.header and file.header.slice] for one in members]


def _refusal(parts: Sequence[SeriesId]) -> SampleError:
    patients, studies = len({one.patient for one in parts}), len({one.study for one in parts})
    stated = [f"{patients} patients (PatientID is empty in some, perhaps)"] * (patients > 1)
    stated += [f"{studies} values of StudyInstanceUID"] * (studies > 1)
    return SampleError(
        "split_series",
        f"slices of one series state {' and '.join(stated)}, and lie between each other as slices of one scan do; "
        "correct their headers",
    )
