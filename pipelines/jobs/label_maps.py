"""Label maps among the files of a scan: found by layout, by name, and where these do not decide, by their voxels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.jobs.recipe import Recipe
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.jobs.voxel_kinds import read_values
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.label_kinds import Values
from crossdim.pipelines.readers.reader import Reader
from crossdim.pipelines.readers.registry import reader_of_format, reader_of_path
from crossdim.pipelines.sources.label_maps import RULE, Candidate, NamedMaps, find_by_name
from crossdim.pipelines.sources.listing import SourceFile, folder_name
from crossdim.pipelines.sources.npz_paths import parse_path

#: Two volumes have the same grid if no corners are further apart than this share of a voxel. Our choice: the effect of rounding.
MAX_SHIFT_VOXELS = 0.05


def find_named_maps(files: Sequence[SourceFile], sources: Sequence[Bucket]) -> set[tuple[int, str]]:
    """Find files that are label maps by their names alone, before any header is read.

    Names count as in the catalog: the source's own folder counts where there are several sources, or if it belongs to a layout.

    Args:
        files: as listed.
        sources: as folders.

    Returns:
        Number of the source and path of each.
    """
    chosen = [(file, reader) for file in files if (reader := _find_reader(file.path, None))]
    found = find_by_name([_build_candidate(file, sources, reader, None) for file, reader in chosen])
    return {(chosen[index][0].source, chosen[index][0].path) for index in found.reasons}


def ignore_label_maps(
    results: Sequence[ScanResult],
    sources: Sequence[Bucket],
    recipe: Recipe,
    *,
    concurrency: int | None = None,
    quiet: bool = False,
) -> list[ScanResult]:
    """Mark label maps among the scan results as ignored.

    Args:
        results: of the scan.
        sources: as folders.
        recipe: decides what is read; voxels are read only by recipes of volumes, or to correct names.
        concurrency: largest number of tasks at a time.
        quiet: whether to show no progress bar.

    Returns:
        The results in the same order, label maps with status ``ignored``.
    """
    pairs = [(one, reader) for one in results if one.status != "ignored" and (reader := _find_reader(one.path, one.header))]
    chosen = [one for one, _ in pairs]
    named = find_by_name([_build_candidate(one, sources, reader, one.header) for one, reader in pairs])
    read = partial(read_values, sources=sources, rules=recipe.read, concurrency=concurrency, quiet=quiet)
    doubtful = {index: chosen[index] for index in named.reasons.keys() - named.by_layout if _may_be_image(chosen[index], recipe)}
    gray = read([doubtful[index] for index in sorted(doubtful)], gray=True)
    for index, result in doubtful.items():
        if gray.get(result.uri) is Values.GRAY:
            del named.reasons[index]
    reasons = {chosen[index].uri: reason for index, reason in named.reasons.items()}
    reasons |= {one.uri: "it is a DICOM segmentation" for one in results if one.header and _is_segmentation(one.header)}
    if recipe.reads == "volume":
        volumes = _Volumes(chosen, named)
        reasons |= volumes.reasons(read(volumes.candidates()))
    return [
        replace(result, status="ignored", rule=RULE, reason=reasons[result.uri], header=None) if result.uri in reasons else result
        for result in results
    ]


def _find_reader(path: str, info: HeaderInfo | None) -> Reader | None:
    """The reader of a file that may be a label map by its name; None for others, such as DICOM, where the header says it."""
    if parse_path(path):
        return None  # an .npz file says itself which of its arrays are images
    reader = reader_of_format(info.format) if info else reader_of_path(path)
    return reader if reader and reader.named_label_maps else None


def _build_candidate(
    file: SourceFile | ScanResult, sources: Sequence[Bucket], reader: Reader, info: HeaderInfo | None
) -> Candidate:
    return Candidate(
        path=file.uri,
        is_volume=reader.kind == "volume",
        layout_path=f"{folder_name(sources[file.source].url)}/{file.path}",
        shape=info.shape if info else None,
        lossless=info is None or reader.lossless,
    )


def _may_be_image(result: ScanResult, recipe: Recipe) -> bool:
    """Whether a file that is named as a label map is sound, of the kind that the recipe reads, and can be told by its values."""
    if result.header is None:
        return False
    reader = reader_of_format(result.header.format)
    return reader.kind == recipe.reads and (reader.kind == "image" or reader.shows_gray is not None)


def _is_segmentation(info: HeaderInfo) -> bool:
    """Whether a DICOM header says so, by class or modality."""
    return info.slice is not None and info.slice.segmentation


class _Volumes:
    """Valid volumes, by the grid that they share."""

    def __init__(self, chosen: Sequence[ScanResult], named: NamedMaps) -> None:
        self._unsure = {one.uri: "its intent_code is of labels" for one in chosen if one.header and one.header.labels}
        self._unsure |= {chosen[index].uri: f"its name says {word}" for index, word in named.unsure.items()}
        sound = [
            result
            for index, result in enumerate(chosen)
            if result.header and reader_of_format(result.header.format).label_values and index not in named.reasons
        ]
        self._grids = group_by_grid(sound)

    def candidates(self) -> list[ScanResult]:
        """Volumes whose voxels decide: those that are unsure, and all of a grid that holds plain numbers and another volume."""
        return [
            result
            for members in self._grids
            for result in members
            if result.uri in self._unsure or (len(members) > 1 and any(map(_holds_plain_numbers, members)))
        ]

    def reasons(self, read: dict[str, Values]) -> dict[str, str]:
        """Why volumes are label maps, by uri.

        Whole numbers that look like labels, also as floats, are labels only beside an image of the same grid: alone they may be
        a phantom, and so may all volumes of a grid whose stored values are few, whatever they are scaled to.
        """
        found = {}
        for uri, why in self._unsure.items():
            if read.get(uri, Values.OTHER) is not Values.OTHER:
                found[uri] = f"{why}, and its voxels are {_WORDS[read[uri]]}"
        for members in self._grids:
            few = [one for one in members if read.get(one.uri) in _FEW and one.uri not in self._unsure]
            alike = [one.uri for one in few if read[one.uri] is Values.LABELS and _holds_plain_numbers(one)]
            images = [one for one in members if one.uri not in found and one not in few]
            if any(read.get(one.uri) is not Values.CONSTANT for one in images):
                found |= dict.fromkeys(alike, "its voxels are labels, and an image of the same grid is there")
        return found


def _holds_plain_numbers(result: ScanResult) -> bool:
    """Whether a volume's stored values stand for themselves."""
    return result.header is not None and result.header.plain


_FEW = frozenset({Values.LABELS, Values.GAPPED_LABELS})
_WORDS = {Values.CONSTANT: "one value", **dict.fromkeys(_FEW, "labels"), Values.FRACTIONS: "fractions from 0 to 1"}


def group_by_grid(volumes: Iterable[ScanResult]) -> list[list[ScanResult]]:
    """Group volumes by grid: the same shape, and corners at the same places."""
    groups: dict[tuple[int, ...], list[list[ScanResult]]] = {}
    for volume in volumes:
        assert volume.header is not None
        same_shape = groups.setdefault(volume.header.shape, [])
        for members in same_shape:
            assert members[0].header is not None
            if is_same_grid(members[0].header, volume.header):
                members.append(volume)
                break
        else:
            same_shape.append([volume])
    return [members for same_shape in groups.values() for members in same_shape]


def is_same_grid(one: HeaderInfo, other: HeaderInfo) -> bool:
    """Whether two volumes have the same shape, and their corners are at the same places.

    Args:
        one: header of a volume.
        other: header of a volume.

    Returns:
        False also where a header states no place or spacing.
    """
    if one.shape != other.shape or one.affine is None or other.affine is None or one.spacing_mm is None:
        return False
    corners = np.array([[x, y, z, 1] for x in (0, one.shape[2]) for y in (0, one.shape[1]) for z in (0, one.shape[0])], float)
    shift = corners @ (np.array(one.affine) - np.array(other.affine)).T
    return bool(np.linalg.norm(shift, axis=1).max() <= MAX_SHIFT_VOXELS * min(one.spacing_mm))


def describe_maps(results: Iterable[ScanResult]) -> str | None:
    """Describe how many label maps were ignored, by reason; None if there are none."""
    found = [result for result in results if result.rule == RULE]
    if not found:
        return None
    kinds = Counter(result.reason.split(",")[0] for result in found)
    reasons = "; ".join(f"{count}: {reason}" for reason, count in kinds.most_common())
    files = "1 file is a label map" if len(found) == 1 else f"{len(found)} files are label maps"
    return f"{files}, such as {found[0].uri!r}, and none is a sample ({reasons}); --include-label-maps takes them as images"
