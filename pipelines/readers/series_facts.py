"""What the headers of one series say together: the numbers by which its slices make a volume, or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from crossdim.foundation.counts import count
from crossdim.pipelines.readers.header_info import HeaderInfo, SliceHeader

#: Different values of one field that are named, the most frequent first.
_SHOWN = 4


def describe_series(headers: Sequence[HeaderInfo]) -> dict[str, str]:
    """Describe the headers of a series, for people who look for the slice that differs.

    Args:
        headers: of its files, in any order.

    Returns:
        Facts by keyword of the element, or in words where several elements make one.
    """
    slices = [header.slice for header in headers if header.slice]
    facts = {"slices": str(len(headers))}
    facts["Rows x Columns"] = _count_values(f"{one.rows} x {one.columns}" for one in slices)
    facts["PixelSpacing"] = _count_values(_format_numbers(one.spacing_mm) for one in slices)
    facts["thickness or spacing, mm"] = _count_values(
        "absent" if one.thickness_mm is None else f"{one.thickness_mm:.4g}" for one in slices
    )
    facts["ImageOrientationPatient"] = _count_values(_format_numbers(one.orientation) for one in slices)
    facts["PhotometricInterpretation"] = _count_values(one.photometric for one in slices)
    facts["Modality"] = _count_values(str(header.modality or "absent") for header in headers)
    return {**facts, **_describe_positions(slices)}


def _format_numbers(numbers: Sequence[float] | None) -> str:
    return "absent" if numbers is None else ", ".join(f"{number:.4g}" for number in numbers)


def _count_values(texts: Iterable[str]) -> str:
    """One value, or several with the number of files that state each."""
    counts = Counter(texts).most_common()
    if len(counts) == 1:
        return counts[0][0]
    shown = "; ".join(f"{text} ({count(number, 'file')})" for text, number in counts[:_SHOWN])
    return f"{shown}; and {len(counts) - _SHOWN} more values" if len(counts) > _SHOWN else shown


def _describe_positions(slices: Sequence[SliceHeader]) -> dict[str, str]:
    """Where slices lie along the normal of the first, and how far apart."""
    oriented = [one for one in slices if one.position_mm is not None and one.orientation is not None]
    facts = {"ImagePositionPatient": f"stated by {len(oriented)} of {len(slices)}"} if len(oriented) < len(slices) else {}
    if not oriented:
        return facts
    along_row, down = np.array(oriented[0].orientation).reshape(2, 3)
    normal = np.cross(along_row, down)
    positions = np.array([one.position_mm for one in oriented])
    order = np.argsort(positions @ normal, kind="stable")
    along = (positions @ normal)[order]
    facts["positions, mm"] = f"{count(len(np.unique(along.round(3))), 'place')} from {along[0]:.5g} to {along[-1]:.5g}"
    if len(along) > 1:
        facts["steps between slices, mm"] = _count_steps(np.diff(along))
        track = positions[order[-1]] - positions[order[0]]
        length = float(np.linalg.norm(track))
        if length and (tilt := np.degrees(np.arccos(np.clip(abs(track @ normal) / length, 0, 1)))) >= 0.1:
            facts["angle between stack and normal"] = f"{tilt:.1f} degrees"
    return facts


def _count_steps(steps: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    counts = Counter(f"{step:.4g}" for step in np.asarray(steps).round(3)).most_common()
    shown = ", ".join(f"{step} ({number} x)" for step, number in counts[:_SHOWN])
    return f"{shown}, and {len(counts) - _SHOWN} other steps" if len(counts) > _SHOWN else shown
