"""The page of a dataset: pictures, counts and tables in one HTML file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.charts import Chart, draw_bars, draw_histogram, draw_scatter
from crossdim.foundation.page.pictures import Floats, Gallery
from crossdim.foundation.page.render import render_page
from crossdim.pipelines.counts import count
from crossdim.pipelines.jobs.rows import CatalogRow
from crossdim.pipelines.show.galleries import build_galleries, choose_inputs, find_inside, read_unit
from crossdim.pipelines.show.summary import (
    DatasetSummary,
    RuleCount,
    Tables,
    describe_size,
    describe_spacing,
    summarise,
    take_first_of_each,
)
from crossdim.pipelines.show.text import describe_patients, format_bytes
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.vocabulary import Presentation

#: Where ``prepare`` writes it, beside the manifest, which does not name it: no reader needs it.
PAGE = "dataset.html"
TEMPLATE = Path(__file__).with_name("page.html")
#: Rows of a table, points of a chart, labels and notes in the page: it stays small, whatever the size of the dataset.
MAX_ROWS, MAX_POINTS, MAX_LABELS, MAX_NOTES = 5_000, 2_000, 40, 50
_BINS = 64


def build_page(dataset: Bucket, tables: Tables, *, where: str = "DATASET", refusals_only: bool = False) -> bytes:
    """Build the page of a dataset. It depends on the dataset alone: the same dataset gives the same page.

    Args:
        dataset: where it is published; samples that are shown are read.
        tables: of the dataset.
        where: how its commands name the dataset; a page that is published names no place.
        refusals_only: whether to show only what was quarantined and ignored.

    Returns:
        HTML in UTF-8.

    Raises:
        StorageError: if a sample cannot be read or is not what was published.
    """
    summary = summarise(tables)
    manifest, catalog = tables.manifest, tables.catalog
    inputs = take_first_of_each(catalog, "source_uri")
    montages, histograms = ([], []) if refusals_only else _draw_modalities(dataset, tables, list(summary.modalities))
    size_chart, spacing_chart, sampled = _draw_sizes(inputs, manifest.presentation)
    labels = dict(list(summary.labels.items())[:MAX_LABELS])
    place = shlex.quote(where)
    return render_page(
        TEMPLATE,
        s=summary,
        where=where,
        refusals_only=refusals_only,
        patients=describe_patients(summary),
        facts=_list_facts(summary),
        montages=montages,
        histograms=histograms,
        histogram_note=_describe_histograms(manifest.preprocessing),
        size_chart=size_chart,
        spacing_chart=spacing_chart,
        sampled=sampled,
        label_chart=draw_bars({printable(name): parts for name, parts in labels.items()}, list(summary.splits)),
        more_labels=len(summary.labels) - len(labels),
        tables=[
            _build_table(
                "Quarantined inputs", summary.quarantined, tables.quarantine, ("rule", "stage", "uri", "num_files", "reason")
            ),
            _build_table("Ignored files", summary.ignored, tables.ignored, ("rule", "format", "uri", "reason")),
        ],
        notes=[(printable(note), number) for note, number in list(summary.notes.items())[:MAX_NOTES]],
        preprocessing=json.dumps(manifest.preprocessing, indent=2, sort_keys=True),
        commands=f"crossdim verify {place}\ncrossdim pretrain --recipe cdssl-p3d:tiny --data {place} --out RUN --workers 0",
    )


def _draw_modalities(
    dataset: Bucket, tables: Tables, modalities: Sequence[str]
) -> tuple[list[tuple[str, list[Gallery]]], list[tuple[str, Chart]]]:
    """Pictures and histograms of each modality, of samples that are read once."""
    montages, histograms = [], []
    for modality in modalities:
        rows = choose_inputs(tables.catalog, modality)
        units = [read_unit(dataset, row) for row in rows]
        montages.append((modality, build_galleries(dataset, tables.manifest, tables.catalog, rows, units)))
        inside = [unit[:, *find_inside(row)] if unit.ndim == 4 else unit for row, unit in zip(rows, units, strict=True)]
        histograms.append((modality, _draw_values(modality, rows, inside)))
    return montages, histograms


def _list_facts(summary: DatasetSummary) -> list[tuple[str, str]]:
    facts = [
        ("bytes", f"{format_bytes(summary.num_bytes)} in {count(summary.num_objects, 'object')}"),
        ("patients", describe_patients(summary)),
        (
            "stored as",
            next(iter(summary.shapes), "") + (f" and {len(summary.shapes) - 1} more" if len(summary.shapes) > 1 else ""),
        ),
    ]
    for split, numbers in summary.splits.items():
        facts.append((split, f"{count(numbers['samples'], 'sample')} of {count(numbers['inputs'], 'input')}"))
    return facts


def _draw_values(modality: str, rows: Sequence[CatalogRow], units: Sequence[Floats]) -> Chart:
    """Histograms of the shown samples: CT in HU, others in unit range."""
    low, high = min(row["unit_low"] for row in rows), max(row["unit_high"] for row in rows)
    one_range = modality == "CT" and all(row["unit_low"] == low and row["unit_high"] == high for row in rows)
    edges = np.linspace(low, high, _BINS + 1) if one_range else np.linspace(0, 1, _BINS + 1)
    counts = {}
    for number, unit in enumerate(units):
        values = unit * (high - low) + low if one_range else unit
        found = np.histogram(values, bins=edges)[0].astype(np.float64)
        counts[f"input {number + 1}"] = found / values.size
    label = (
        f"stored value, HU; a network sees {low:g} as 0 and {high:g} as 1"
        if one_range
        else "stored value, as a share of the range that a network sees"
    )
    return draw_histogram(edges, counts, label, "share of voxels")


def _describe_histograms(preprocessing: dict[str, object]) -> str:
    found: Any = preprocessing.get("intensity")
    if not isinstance(found, dict):
        return "Values of images are stored as they were read."
    low, high = found.get("percentiles", (None, None))
    window = found.get("window_hu")
    return (
        f"CT was clipped to {window[0]:g} to {window[1]:g} HU; " if window else ""
    ) + f"other volumes to their own percentiles {low} and {high}. What was clipped is in the first and in the last bin."


def _draw_sizes(inputs: pa.Table, presentation: Presentation) -> tuple[Chart, Chart | None, str]:
    """Sizes in a plane, and for volumes the spacing in the plane against that along depth."""
    step = -(-inputs.num_rows // MAX_POINTS)
    rows = inputs.take(pa.array(range(0, inputs.num_rows, step))).to_pylist()
    sampled = f"Every {step}th input is shown." if step > 1 else ""
    is_volume = presentation is Presentation.SUPERPATCH
    sizes: dict[str, tuple[list[float], list[float], list[str]]] = {}
    spacings: dict[str, tuple[list[float], list[float], list[str]]] = {}
    for row in rows:
        text = printable(f"{row['source_uri']}: {describe_size(row)}, {describe_spacing(row['spacing_mm'])}")
        shape = row["volume_shape"] or row["shape"][1:]
        width, height = (shape[2], shape[0]) if is_volume else _find_image_size(row)
        _add(sizes, row["modality"], width, height, text)
        if row["spacing_mm"] and is_volume:
            _add(spacings, row["modality"], width * row["spacing_mm"][2], height * row["spacing_mm"][0], text)
    names = ("width, voxels", "depth, voxels") if is_volume else ("width, pixels", "height, pixels")
    extents = draw_scatter(spacings, "width, mm", "depth, mm") if spacings else None
    return draw_scatter(sizes, *names), extents, sampled


def _find_image_size(row: dict[str, Any]) -> tuple[int, int]:
    return (row["image_width"], row["image_height"]) if row["image_height"] else (row["shape"][-1], row["shape"][-2])


def _add(groups: dict[str, tuple[list[float], list[float], list[str]]], name: str, x: float, y: float, text: str) -> None:
    xs, ys, texts = groups.setdefault(name, ([], [], []))
    xs.append(x)
    ys.append(y)
    texts.append(text)


def _build_table(
    title: str, rules: Sequence[RuleCount], table: pa.Table, columns: tuple[str, ...]
) -> tuple[str, Sequence[RuleCount], tuple[str, ...], list[list[str]], int]:
    kept = [name for name in columns if name in table.column_names]
    shown = table.select(kept).slice(0, MAX_ROWS)
    order = pc.sort_indices(shown, sort_keys=[("rule", "ascending")]) if shown.num_rows else pa.array([], pa.int64())
    rows = [[printable(str(row[name])) for name in kept] for row in shown.take(order).to_pylist()]
    return title, rules, tuple(kept), rows, table.num_rows
