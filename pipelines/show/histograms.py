"""Histograms of an input's values before any stage and of its stored sample, one beside the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from crossdim.foundation.page.charts import Chart, draw_histogram
from crossdim.foundation.page.pictures import Floats
from crossdim.pipelines.jobs.rows import CatalogRow
from crossdim.pipelines.readers.source_values import SourceValues
from crossdim.pipelines.show.galleries import find_inside
from crossdim.storage_schema.names import printable

#: Inputs of each modality in a chart: more lines over each other cannot be told apart.
SHOWN = 3
_BINS = 64
#: Letters of an input's name in a legend.
NAME_LENGTH = 28
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueCharts:
    """Values of some inputs of a modality, as they were in the source, if that is known, and as they are stored."""

    modality: str
    before: Chart | None
    after: Chart


def spread(items: Sequence[_Item]) -> list[_Item]:
    """Choose at most :data:`SHOWN` items evenly, the first and the last among them."""
    return [items[place] for place in np.linspace(0, len(items) - 1, min(SHOWN, len(items))).astype(int)] if items else []


def draw_values(
    modality: str, rows: Sequence[CatalogRow], units: Sequence[Floats], sources: Mapping[str, SourceValues]
) -> ValueCharts:
    """Draw the values of some inputs.

    Args:
        modality: such as ``CT``.
        rows: a sample of each input.
        units: their arrays in unit range.
        sources: values before any stage, by name of the input.

    Returns:
        Both charts; inputs have the same colour in both.
    """
    pairs = spread(list(zip(rows, units, strict=True)))
    names = {row["source_uri"]: _name_input(number, row) for number, (row, _) in enumerate(pairs)}
    known = {name: sources[uri] for uri, name in names.items() if uri in sources}
    ends = {name: (row["unit_low"], row["unit_high"]) for name, (row, _) in zip(names.values(), pairs, strict=True)}
    before = _draw_before(modality, known, ends) if len(known) == len(names) else None
    inside = [unit[:, *find_inside(row)] if unit.ndim == 4 else unit for row, unit in pairs]
    return ValueCharts(modality=modality, before=before, after=_draw_after(modality, [row for row, _ in pairs], inside))


def _name_input(number: int, row: CatalogRow) -> str:
    """A short name of an input, which its picture has as well: the end of its path, after a number that tells it from others."""
    return f"{number + 1}: {printable(row['source_uri'])[-NAME_LENGTH:]}"


def _draw_before(modality: str, values: Mapping[str, SourceValues], ends: Mapping[str, tuple[float, float]]) -> Chart:
    """Values in the source, with marks where they were clipped."""
    edges = np.linspace(min(one.low for one in values.values()), max(one.high for one in values.values()), _BINS + 1)
    counts = {name: rebin(one, edges) for name, one in values.items()}
    ranges = set(ends.values())
    marks = [(end, f"{end:g} is seen as {place}") for place, end in enumerate(ranges.pop())] if len(ranges) == 1 else []
    span = f"{min(one.minimum for one in values.values()):.5g} to {max(one.maximum for one in values.values()):.5g}"
    unit = "HU" if modality == "CT" else "in the file's unit"
    return draw_histogram(edges, counts, f"value in the source, {unit}; {span} in all", "share of values", marks)


def rebin(values: SourceValues, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Distribute a histogram over other bins: each share evenly over the width of its bin.

    Args:
        values: the histogram.
        edges: (N + 1,) of the bins, which hold its range.

    Returns:
        (N,) shares, which sum to 1.
    """
    sums = np.concatenate([[0.0], np.cumsum(values.shares)])
    borders = np.linspace(values.low, values.high, len(sums))
    return np.diff(np.interp(edges, borders, sums))


def _draw_after(modality: str, rows: Sequence[CatalogRow], units: Sequence[Floats]) -> Chart:
    """Stored values: CT in HU, others in unit range."""
    low, high = min(row["unit_low"] for row in rows), max(row["unit_high"] for row in rows)
    one_range = modality == "CT" and all(row["unit_low"] == low and row["unit_high"] == high for row in rows)
    edges = np.linspace(low, high, _BINS + 1) if one_range else np.linspace(0, 1, _BINS + 1)
    counts = {}
    for number, unit in enumerate(units):
        values = unit * (high - low) + low if one_range else unit
        found = np.histogram(values, bins=edges)[0].astype(np.float64)
        counts[_name_input(number, rows[number])] = found / values.size
    label = (
        f"stored value, HU; a network sees {low:g} as 0 and {high:g} as 1"
        if one_range
        else "stored value, as a share of the range that a network sees"
    )
    return draw_histogram(edges, counts, label, "share of values")


def describe_histograms(preprocessing: dict[str, object]) -> str:
    """What the intensity stage does between the two charts, from the record of preprocessing."""
    shown = (
        "Before: values of the whole input, as its reader gives them; dashed lines are what a network sees as 0 and 1, "
        "if that is the same for all. "
        "After: values of the sample that is shown above."
    )
    found: Any = preprocessing.get("intensity")
    if not isinstance(found, dict):
        return f"{shown} Values of images are stored as they were read."
    low, high = found.get("percentiles", (None, None))
    window = found.get("window_hu")
    clipped = f"CT was clipped to {window[0]:g} to {window[1]:g} HU; " if window else ""
    others = f"other volumes to their own percentiles {low} and {high}"
    return f"{shown} {clipped}{others}. What was clipped is in the first and in the last bin."
