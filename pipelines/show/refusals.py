"""Tables of what was refused and ignored: with a picture, and the header fields that explain the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from crossdim.foundation.page.pictures import PNG_URI
from crossdim.pipelines.readers.dicom_preview import WITHHELD
from crossdim.pipelines.show.preview_record import PreviewRecord, SeenInput
from crossdim.pipelines.show.summary import RuleCount
from crossdim.storage_schema.names import printable

#: Rows of a table in the page.
MAX_ROWS = 5_000
_PLACES = ("positions, mm", "steps between slices, mm", "thickness or spacing, mm", "SliceThickness", "SpacingBetweenSlices")
_SPACING = ("PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "SpacingBetweenSlices", "pixdim", "xyzt_units")
_ANGLES = ("angle between stack and normal", "GantryDetectorTilt", "ImageOrientationPatient")
_COLOUR = ("PhotometricInterpretation", "SamplesPerPixel", "BitsStored", "PresentationLUTShape", "pixels", "bits")
_FRAME = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "TransferSyntaxUID")
_LENGTH = (*_FRAME, "size", "dim", "datatype")
_SCALE = ("RescaleSlope", "RescaleIntercept", "RescaleType", "scl_slope", "scl_inter")
_KIND = ("Modality", "SOPClassUID", "ImageType", "NumberOfFrames", "intent_code")
#: Fields that explain a rule, in this order; those of other rules are the first that there are.
EXPLAINING: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("irregular_spacing", "beyond_gap", "repeated_position", "split_series"), _PLACES),
    **dict.fromkeys(("missing_spacing", "mixed_spacing", "too_small", "thin"), _SPACING),
    **dict.fromkeys(("gantry_tilt", "shifted_slices", "orientation", "mixed_orientation", "missing_orientation"), _ANGLES),
    **dict.fromkeys(("photometric", "mixed_photometric", "colour", "palette_colour", "pixel_mode", "depth"), _COLOUR),
    **dict.fromkeys(("truncated", "pixel_length", "pixel_shape", "no_pixels", "too_large", "dimensions", "frame_count"), _LENGTH),
    **dict.fromkeys(("rescale", "missing_rescale"), _SCALE),
    **dict.fromkeys(("modality", "mixed_modality", "segmentation", "multi_frame", "mosaic", "label_map", "not_an_image"), _KIND),
    "missing_position": ("ImagePositionPatient", "slices"),
    "incomplete_volume": ("slices", *_PLACES),
    "scout": ("ImageType", "ImageOrientationPatient", "Rows x Columns"),
    "mixed_size": ("Rows x Columns",),
    "high_bit": ("HighBit", "BitsStored", "BitsAllocated"),
    "code_stream": ("TransferSyntaxUID", "Rows", "Columns", "BitsStored", "PixelRepresentation"),
    "codec": ("TransferSyntaxUID",),
    "padding": ("PixelPaddingValue", "PixelPaddingRangeLimit", "PixelRepresentation", "BitsStored"),
    "burned_in": ("BurnedInAnnotation", "SOPClassUID"),
    "sform_pixdim": ("pixdim", "sform_code", "qform_code"),
    "datatype": ("datatype", "bitpix"),
    "offset": ("vox_offset",),
}
#: Of rules that are not named above.
_SHOWN_FIELDS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedRow:
    """One row of a table: its cells, its picture as a data URI, and header fields, those first that explain the rule."""

    cells: tuple[str, ...]
    picture: str = ""
    explaining: tuple[tuple[str, str], ...] = ()
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedTable:
    """The inputs that were refused, or the files that were ignored."""

    title: str
    rules: Sequence[RuleCount]
    columns: tuple[str, ...]
    rows: Sequence[RefusedRow]
    total: int


def build_refused_table(
    title: str, rules: Sequence[RuleCount], table: pa.Table, columns: Mapping[str, str], seen: PreviewRecord
) -> RefusedTable:
    """Build a table of the page.

    Args:
        title: such as ``Ignored files``.
        rules: counts of its rules.
        table: of the dataset.
        columns: heads of the columns that are shown, by their names in the dataset.
        seen: pictures and fields.

    Returns:
        At most :data:`MAX_ROWS` rows, by rule; of each rule those that have a picture or fields come first.
    """
    kept = [name for name in columns if name in table.column_names]
    known = {one.uri: one for one in seen.inputs}
    is_seen = pc.is_in(table["uri"], value_set=pa.array(list(known), pa.string()))
    order = pc.sort_indices(pa.table({"seen": pc.invert(is_seen), "rule": table["rule"]}), sort_keys=[("seen", "ascending")])
    shown = table.take(order[:MAX_ROWS]).select(kept)
    by_rule = pc.sort_indices(shown, sort_keys=[("rule", "ascending")])
    rows = [_build_row(row, kept, known.get(row["uri"])) for row in shown.take(by_rule).to_pylist()]
    return RefusedTable(title=title, rules=rules, columns=tuple(columns[name] for name in kept), rows=rows, total=table.num_rows)


def _build_row(row: Mapping[str, object], names: Sequence[str], seen: SeenInput | None) -> RefusedRow:
    cells = tuple(printable(str(row[name])) for name in names)
    if seen is None:
        return RefusedRow(cells=cells)
    fields = {printable(name): printable(value) for name, value in seen.fields}
    first = [name for name in EXPLAINING.get(str(row["rule"]), ()) if name in fields] or list(fields)[:_SHOWN_FIELDS]
    first += [name for name in WITHHELD if name in fields and name not in first]
    return RefusedRow(
        cells=cells,
        picture=seen.picture if seen.picture.startswith(PNG_URI) else "",
        explaining=tuple((name, fields[name]) for name in first),
        others=tuple((name, value) for name, value in fields.items() if name not in first),
    )
