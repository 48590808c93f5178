"""Enhanced multi-frame DICOM: what functional groups state of each frame, as the header of a file with one frame would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset

from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.series_split import split_series
from crossdim.pipelines.readers.slice_order import SeriesGeometry, stack_slices
from crossdim.storage_schema.errors import SampleError

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
#: Sequences of functional groups that say where a frame lies, what its values mean and what it shows (PS3.3 C.7.6.16). Vendors
#: put copies of whole headers into private ones, whose positions are others.
_MACROS = frozenset(
    {
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
        "FrameContentSequence",
        "MREchoSequence",
        "MRDiffusionSequence",
        "DiffusionGradientDirectionSequence",
        "CardiacSynchronizationSequence",
        "MRImageFrameTypeSequence",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameStack:
    """The volume that the frames of one file make, or why they make none."""

    geometry: SeriesGeometry | None
    reason: str = ""


def has_frame_groups(dataset: Any) -> bool:
    """Whether a header states something of each frame."""
    return _PER_FRAME in dataset


def flatten_frames(dataset: Any, num_frames: int) -> list[Any]:
    """Build a header for each frame, with what functional groups state of it beside what the file states of all.

    Args:
        dataset: the header, of a file with functional groups.
        num_frames: that it promises.

    Returns:
        A dataset for each frame, without pixels.

    Raises:
        SampleError: rule ``frame_count`` for groups of fewer or more frames.
    """
    per_frame = dataset[_PER_FRAME].value
    if len(per_frame) != num_frames:
        raise SampleError("frame_count", f"the header states {num_frames} frames, and positions and the like of {len(per_frame)}")
    common = Dataset()
    for element in dataset:
        if element.VR != "SQ" and element.tag.group < 0x7FE0:
            common.add(element)
    common.NumberOfFrames = 1
    for group in dataset.get(_SHARED) or ():
        _flatten(group, common)
    frames = []
    for group in per_frame:
        frame = Dataset()
        frame.update(common)
        _flatten(group, frame)
        frame.file_meta = dataset.file_meta
        frames.append(frame)
    return frames


def _flatten(group: Any, frame: Dataset) -> None:
    """Add what the sequences of a functional group state; each has one item."""
    for element in group:
        if element.keyword in _MACROS and len(element.value) == 1:
            _flatten(element.value[0], frame)
        elif element.VR != "SQ":
            frame.add(element)


def stack_frames(headers: Sequence[SliceHeader]) -> FrameStack:
    """Stack the frames of one file.

    Args:
        headers: of its frames, in their order, which stands for InstanceNumber.

    Returns:
        Their volume; or a reason in our words if there is none, or more than one.
    """
    numbered = [replace(one, tags=replace(one.tags, instance=number)) for number, one in enumerate(headers)]
    parts = split_series(numbered)
    if len(parts) > 1:
        return FrameStack(geometry=None, reason=f"{len(parts)} volumes in one file, such as {parts[0].name} and {parts[-1].name}")
    try:
        return FrameStack(geometry=stack_slices(headers))
    except SampleError as error:
        return FrameStack(geometry=None, reason=error.reason)
