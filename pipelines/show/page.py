"""The page of a dataset: pictures, counts and tables in one HTML file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.counts import count
from crossdim.foundation.page.charts import Chart, draw_bars, draw_scatter
from crossdim.foundation.page.pictures import Gallery
from crossdim.foundation.page.render import DATASET_PAGE, render_page
from crossdim.pipelines.show.galleries import build_galleries, choose_inputs, read_unit
from crossdim.pipelines.show.histograms import ValueCharts, describe_histograms, draw_values
from crossdim.pipelines.show.preview_record import PreviewRecord, read_previews
from crossdim.pipelines.show.refusals import build_refused_table
from crossdim.pipelines.show.source_names import use_source_names_of_previews
from crossdim.pipelines.show.summary import (
    DatasetSummary,
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
PAGE = DATASET_PAGE
TEMPLATE = Path(__file__).with_name("page.html")
#: Points of a chart, labels and notes in the page: it stays small, whatever the size of the dataset.
MAX_POINTS, MAX_LABELS, MAX_NOTES = 2_000, 40, 50
#: Columns of the tables, and their heads in the page.
QUARANTINE_COLUMNS = {"rule": "rule", "stage": "stage", "uri": "input", "num_files": "files", "reason": "reason"}
IGNORED_COLUMNS = {"rule": "rule", "format": "format", "uri": "file", "reason": "reason"}


def build_page(
    dataset: Bucket,
    tables: Tables,
    *,
    where: str = "DATASET",
    refusals_only: bool = False,
    names: Mapping[str, str] | None = None,
) -> bytes:
    """Build the page of a dataset. It depends on the dataset alone: the same dataset gives the same page.

    Args:
        dataset: where it is published; samples that are shown are read.
        tables: of the dataset.
        where: how its commands name the dataset; a page that is published names no place.
        refusals_only: whether to show only what was quarantined and ignored.
        names: paths by the names of inputs, for the owner of the sources; ``tables`` have them already.

    Returns:
        HTML in UTF-8.

    Raises:
        StorageError: if a sample cannot be read or is not what was published.
    """
    summary = summarise(tables)
    manifest, catalog = tables.manifest, tables.catalog
    inputs = take_first_of_each(catalog, "source_uri")
    seen = use_source_names_of_previews(read_previews(dataset, manifest), names or {})
    montages, histograms = ([], []) if refusals_only else _draw_modalities(dataset, tables, list(summary.modalities), seen)
    size_chart, spacing_chart, sampled = _draw_sizes(inputs, manifest.presentation)
    labels = dict(list(summary.labels.items())[:MAX_LABELS])
    place = shlex.quote(where)
    return render_page(
        TEMPLATE,
        s=summary,
        where=where,
        refusals_only=refusals_only,
        shows_paths=bool(names),
        patients=describe_patients(summary),
        facts=_list_facts(summary),
        montages=montages,
        histograms=histograms,
        histogram_note=describe_histograms(manifest.preprocessing),
        size_chart=size_chart,
        spacing_chart=spacing_chart,
        sampled=sampled,
        label_chart=draw_bars({printable(name): parts for name, parts in labels.items()}, list(summary.splits)),
        more_labels=len(summary.labels) - len(labels),
        tables=[
            build_refused_table("Quarantined inputs", summary.quarantined, tables.quarantine, QUARANTINE_COLUMNS, seen),
            build_refused_table("Ignored files", summary.ignored, tables.ignored, IGNORED_COLUMNS, seen),
        ],
        left_out=seen.left_out,
        notes=[(printable(note), number) for note, number in list(summary.notes.items())[:MAX_NOTES]],
        preprocessing=json.dumps(manifest.preprocessing, indent=2, sort_keys=True),
        commands=f"crossdim verify {place}\ncrossdim pretrain --recipe cdssl-p3d:tiny --data {place} --out RUN --workers 0",
    )


def _draw_modalities(
    dataset: Bucket, tables: Tables, modalities: Sequence[str], seen: PreviewRecord
) -> tuple[list[tuple[str, list[Gallery]]], list[ValueCharts]]:
    """Pictures and histograms of each modality, of samples that are read once."""
    montages, histograms = [], []
    sources = {one.uri: one.values for one in seen.values}
    for modality in modalities:
        rows = choose_inputs(tables.catalog, modality)
        units = [read_unit(dataset, row) for row in rows]
        montages.append((modality, build_galleries(dataset, tables.manifest, tables.catalog, rows, units)))
        histograms.append(draw_values(modality, rows, units, sources))
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
