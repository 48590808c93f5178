"""Pictures of a dataset: some inputs of each modality, decoded from their stored samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.pictures import Floats, Gallery, Picture, encode_png
from crossdim.pipelines.jobs.rows import CatalogRow, check_row
from crossdim.pipelines.show.planes import draw_grid_plane, draw_three_planes, find_boxes_of_plane
from crossdim.pipelines.show.summary import describe_size, describe_spacing, take_first_of_each
from crossdim.storage_schema.errors import Problem, StorageError
from crossdim.storage_schema.manifest import Manifest
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.pseudo3d import Pseudo3D, find_recorded_settings, fold, to_gray, unroll
from crossdim.storage_schema.sample import Array, Scaling
from crossdim.storage_schema.superpatch import Index, SuperpatchGrid
from crossdim.storage_schema.vocabulary import Presentation

#: Inputs of each modality that are shown.
SHOWN_INPUTS = 6
#: Volumes of each modality that are put together from their superpatches; of the others one superpatch is shown.
SHOWN_GRIDS = 2
#: Boxes that are read for one volume at most: of a larger one the axial plane alone is drawn.
MAX_BOXES = 60
SHOWN_SLICES = 4


def read_unit(dataset: Bucket, row: CatalogRow) -> Floats:
    """Read the array of a catalog row with one range request.

    Args:
        dataset: where it is published.
        row: of the catalog.

    Returns:
        The array in unit range.

    Raises:
        StorageError: if its bytes are not those that were published.
    """
    array = _read_stored(dataset, row)
    return Scaling(slope=row["slope"], intercept=row["intercept"], low=row["unit_low"], high=row["unit_high"]).unit(array)


def _read_stored(dataset: Bucket, row: CatalogRow) -> Array:
    try:
        data = dataset.read_range(row["object"], row["offset"], row["length"])
    except StorageError as error:
        raise StorageError(f"{error}; crossdim verify lists all that is wrong") from error
    found = check_row(data, {**row, "offset": 0})
    if isinstance(found, Problem):
        raise StorageError(f"{dataset.where(row['object'])}: {found}; run crossdim verify")
    return found


def choose_inputs(catalog: pa.Table, modality: str) -> list[CatalogRow]:
    """Choose inputs of a modality evenly over the catalog, and of each the sample that has most to show.

    Args:
        catalog: of the dataset.
        modality: such as ``CT``.

    Returns:
        One row for each chosen input: its largest when compressed.
    """
    inputs = take_first_of_each(catalog.filter(pc.equal(catalog["modality"], modality)), "source_uri")
    chosen = np.linspace(0, inputs.num_rows - 1, min(SHOWN_INPUTS, inputs.num_rows)).astype(np.int64)
    samples = [_find_samples(catalog, uri) for uri in inputs["source_uri"].take(pa.array(chosen)).to_pylist()]
    return [max(rows, key=lambda row: row["length"]) for rows in samples]


def _find_samples(catalog: pa.Table, uri: str) -> list[CatalogRow]:
    rows: list[CatalogRow] = catalog.filter(pc.equal(catalog["source_uri"], uri)).to_pylist()
    return rows


def build_galleries(
    dataset: Bucket, manifest: Manifest, catalog: pa.Table, rows: Sequence[CatalogRow], units: Sequence[Floats]
) -> list[Gallery]:
    """Build the pictures of some inputs.

    Args:
        dataset: where it is published; the superpatches around the first rows are read.
        manifest: of the dataset.
        catalog: of the dataset.
        rows: a sample of each input.
        units: their arrays in unit range.

    Returns:
        One gallery for each row.
    """
    if manifest.presentation is not Presentation.SUPERPATCH:
        settings = find_recorded_settings(manifest.preprocessing)
        spec = Pseudo3D(**settings) if settings else None  # type: ignore[arg-type]
        return [Gallery(title=_describe(row), rows=_draw_image(row, unit, spec)) for row, unit in zip(rows, units, strict=True)]
    recorded = manifest.preprocessing.get("superpatch")
    grid = SuperpatchGrid(**recorded) if isinstance(recorded, dict) else None
    galleries = []
    for number, (row, unit) in enumerate(zip(rows, units, strict=True)):
        drawn = [("", draw_three_planes(unit[0][find_inside(row)]))]
        if grid and row["volume_shape"] and number < SHOWN_GRIDS:
            drawn += _draw_grid(dataset, tuple(row["volume_shape"]), _find_samples(catalog, row["source_uri"]), grid)
        galleries.append(Gallery(title=_describe(row), rows=drawn))
    return galleries


def find_inside(row: CatalogRow) -> tuple[slice, ...]:
    """Find the part of a superpatch that lies in its volume, and is not filled up."""
    if not row["volume_shape"] or not row["origin_zyx"]:
        return ()
    return tuple(slice(size - first) for size, first in zip(row["volume_shape"], row["origin_zyx"], strict=True))


def _describe(row: CatalogRow) -> str:
    spacing = describe_spacing(row["spacing_mm"]) if row["spacing_mm"] else "spacing unknown"
    facts = [describe_size(row), spacing, row["split"]]
    facts += [f"label {row['label']}"] if row["label"] else []
    return printable(f"{row['source_uri']} ({', '.join(facts)})")


def _draw_image(row: CatalogRow, unit: Floats, spec: Pseudo3D | None) -> list[tuple[str, list[Picture]]]:
    if unit.ndim == 3:
        image_CHW, volume = unit, unroll(to_gray(unit), spec) if spec else None
    else:
        volume = unit
        fits = spec is not None and row["image_height"]
        image_CHW = fold(unit, spec, row["image_height"], row["image_width"], uncovered=0.0) if spec and fits else unit[:, 0]
    pictures = [Picture(caption="image", uri=encode_png(_to_picture(image_CHW)))]
    if volume is not None:
        depths = np.linspace(0, volume.shape[1] - 1, min(SHOWN_SLICES, volume.shape[1])).astype(int)
        pictures += [Picture(caption=f"pseudo-3D slice {depth}", uri=encode_png(volume[0, depth])) for depth in depths]
    return [("", pictures)]


def _to_picture(image_CHW: Floats) -> Floats:
    return image_CHW.transpose(1, 2, 0) if image_CHW.shape[0] == 3 else image_CHW[0]


def _draw_grid(
    dataset: Bucket, shape: Index, rows: Sequence[CatalogRow], grid: SuperpatchGrid
) -> list[tuple[str, list[Picture]]]:
    """The middle planes of a volume from its superpatches; nothing for a volume of one."""
    if len(grid.starts(shape)) == 1:
        return []
    places = {tuple(row["origin_zyx"]): row for row in rows}
    crossed = [find_boxes_of_plane(grid, shape, axis) for axis in range(3)]
    planes = [0, 1, 2] if len({*crossed[0], *crossed[1], *crossed[2]} & places.keys()) <= MAX_BOXES else [0]
    wanted = {start for axis in planes for start in crossed[axis]} & places.keys()
    boxes = {start: read_unit(dataset, places[start])[0] for start in sorted(wanted)}
    return [("superpatches in their volume", [draw_grid_plane(boxes, grid, shape, axis) for axis in planes])]
