"""The volumes of a series, by the headers of its slices: each with its name and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.series_split import Part, split_series
from crossdim.pipelines.readers.slice_gaps import find_longest_run
from crossdim.storage_schema.errors import SampleError

#: The name of what is left out of a volume whose slices have gaps.
_BEYOND_GAP = "beyond-gap"


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesVolume:
    """One volume of a series, by its headers.

    Attributes:
        files: its slices.
        name: of ours; empty where the series is one volume.
        fault: why it is no volume by itself.
        notes: how it was told from the rest of its series.
    """

    files: Sequence[ScanResult]
    name: str = ""
    fault: SampleError | None = None
    notes: tuple[str, ...] = ()

    def uri(self, series: str) -> str:
        """Its name in the dataset, where ``series`` is that of its series."""
        return f"{series}:{self.name}" if self.name else series


def split_into_volumes(files: Sequence[ScanResult], rules: ReadRules) -> list[SeriesVolume]:
    """Split a series into volumes, see :mod:`crossdim.pipelines.readers.series_split` and ``slice_gaps``.

    Args:
        files: its slices.
        rules: of the recipe.

    Returns:
        Each with its name and what is wrong with it; of scouts beside a stack the stack is kept, of a stack with gaps its longest
        run. All files are in one of them.
    """
    headers = [one.header.slice for one in files if one.header and one.header.slice]
    if len(headers) < len(files):
        return [SeriesVolume(files=files)]
    parts = split_series(headers)
    volumes: list[SeriesVolume] = []
    for part in parts:
        inside = [headers[number] for number in part.numbers]
        volume = SeriesVolume(
            files=[files[number] for number in part.numbers],
            name=part.name,
            fault=_find_fault(inside, part) if len(parts) > 1 else None,
            notes=_note_split(part, len(parts)),
        )
        kept = find_longest_run(inside, rules.tilt) if rules.gaps == "longest" and volume.fault is None else None
        volumes += [volume] if kept is None else _divide(volume, kept)
    return volumes


def _note_split(part: Part, num_parts: int) -> tuple[str, ...]:
    if num_parts == 1:
        return ()
    return (f"one of {num_parts} volumes of its series, told by {', '.join(part.elements)}",)


def _find_fault(headers: Sequence[SliceHeader], part: Part) -> SampleError | None:
    if all(one.localizer for one in headers):
        return SampleError("scout", "ImageType is LOCALIZER, and the series holds slices of other orientations or sizes")
    if part.missing:
        return SampleError(
            "incomplete_volume", f"{part.missing} of the {part.missing + len(headers)} positions of its series are not there"
        )
    return None


def _divide(volume: SeriesVolume, kept: Sequence[int]) -> list[SeriesVolume]:
    """The slices that are kept, under the name of the volume, and those beyond its gaps."""
    inside = set(kept)
    beyond = [file for number, file in enumerate(volume.files) if number not in inside]
    told = f"{len(kept)} of {count(len(volume.files), 'slice')}"
    return [
        SeriesVolume(
            files=[volume.files[number] for number in kept],
            name=volume.name,
            notes=(*volume.notes, f"slices are missing, the longest even run of them kept ({told})"),
        ),
        SeriesVolume(
            files=beyond,
            name=f"{volume.name}-{_BEYOND_GAP}" if volume.name else _BEYOND_GAP,
            fault=SampleError(
                "beyond_gap",
                f"slices of the series are missing; its longest even run is kept ({told}), and these lie beyond a gap; "
                "--gaps refuse refuses the series whole",
            ),
        ),
    ]
