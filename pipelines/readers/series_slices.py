"""The slices of a DICOM series: each once, from a file that is sound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossdim.pipelines.readers.dicom import read_pixels
from crossdim.pipelines.readers.dicom_errors import translate_errors
from crossdim.pipelines.readers.dicom_header import read_header
from crossdim.pipelines.readers.header_info import HeaderInfo, SliceHeader
from crossdim.pipelines.readers.raw import RawItem, number_files
from crossdim.pipelines.readers.slice_order import place_of
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array

#: The rule of files that hold the pixels of another one at its place, in another compression or under another UID.
COPY_RULE = "duplicate"
#: What decides the values that stored pixels stand for.
_VALUE_ELEMENTS = (
    "Modality",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """One file of a series: its number in the input, header, stored pixels (H, W), and what was decided on the way."""

    number: int
    dataset: Any
    header: SliceHeader
    stored: Array
    notes: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """One file of a series that is not used: its number in the input, and why."""

    number: int
    rule: str
    reason: str

    def row(self) -> list[object]:
        """As it is handed to the task."""
        return [self.number, self.rule, self.reason]


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesSlices:
    """The slices of a series, and the files that are left out of it. Files of equal content are in neither, but for the first."""

    slices: list[Slice]
    left_out: list[LeftOut]


def read_slices(item: RawItem) -> SeriesSlices:
    """Read every file whose content no earlier one has.

    Args:
        item: all files of a series.

    Returns:
        The slices; and damaged files that lie where a sound slice does, and copies of a slice in another file.

    Raises:
        SampleError: for a damaged file without a sound copy.
    """
    first: dict[bytes, int] = {}
    for number, data in enumerate(item.files):
        first.setdefault(hashlib.sha256(data).digest(), number)
    slices, damaged = [], {}
    for number in first.values():
        try:
            with number_files([number]):
                found = read_pixels(item.files[number], item.rules)
        except SampleError as error:
            damaged[number] = error
            continue
        slices.append(Slice(number=number, dataset=found.dataset, header=found.header, stored=found.pixels, notes=found.notes))
    sound = {place_of(one.header, one.number) for one in slices}
    for number, refused in damaged.items():
        if _place_in(item, number) not in sound:
            raise refused
    copies = _find_copies(slices)
    return SeriesSlices(
        slices=[one for one in slices if one.number not in copies],
        left_out=[LeftOut(number=number, rule=refused.rule, reason=refused.reason) for number, refused in damaged.items()]
        + [
            LeftOut(number=number, rule=COPY_RULE, reason="pixels and place are those of another file")
            for number in sorted(copies)
        ],
    )


def _place_in(item: RawItem, number: int) -> tuple[float, ...] | None:
    """Where the slice of a damaged file lies, if its header tells."""
    try:
        info = read_header(item.files[number], item.rules)
    except SampleError:
        return None
    header = info.slice if isinstance(info, HeaderInfo) else None
    return place_of(header, number) if header and header.position_mm else None


def _find_copies(slices: Iterable[Slice]) -> set[int]:
    """Numbers of the slices that show what an earlier one shows, with the same values, at the same place and time."""
    kept: dict[SliceHeader, list[Slice]] = {}
    copies: set[int] = set()
    for one in slices:
        alike = kept.setdefault(replace(one.header, position_decimals=None), [])
        if one.header.position_mm is not None and any(_shows_same(one, other) for other in alike):
            copies.add(one.number)
        else:
            alike.append(one)
    return copies


def _shows_same(one: Slice, other: Slice) -> bool:
    with number_files([one.number]), translate_errors("the grey values cannot be read"):
        same = all(one.dataset.get(name) == other.dataset.get(name) for name in _VALUE_ELEMENTS)
    return same and np.array_equal(one.stored, other.stored)
