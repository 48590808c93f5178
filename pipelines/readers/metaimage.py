"""Recognise MetaImage files, and parse their headers: ``Key = Value`` lines, of which the last says where the voxels are.

Written after the documentation of MetaIO, and held to SimpleITK. Space is ITK's: (left, posterior, superior).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.inflate import ZLIB_WINDOW
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.text_header import (
    MAX_HEADER_BYTES,
    NO_ORIENTATION_NOTE,
    build_affine,
    check_sizes,
    expect_count,
    parse_numbers,
)
from crossdim.pipelines.readers.volume_header import VolumeHeader
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.vocabulary import Modality

#: Name of the format.
METAIMAGE = "metaimage"
#: The first line; the type of object comes first, or may be left out before the number of dimensions.
_FIRST_LINE = re.compile(rb"\s*(ObjectType|NDims)\s*=", re.ASCII)
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # 4 bytes in a file, whatever the machine
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MODALITIES = {"MET_MOD_CT": Modality.CT, "MET_MOD_MR": Modality.MR, "MET_MOD_NM": Modality.NM, "MET_MOD_US": Modality.US}
_TO_RAS = (-1.0, -1.0, 1.0)
#: Names that one field has in headers of different writers; ITK takes the first that is there.
_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")
_BIG_ENDIAN = ("ElementByteOrderMSB", "BinaryDataByteOrderMSB")


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file are a MetaImage header, valid or not."""
    return _FIRST_LINE.match(head) is not None


def parse_header(data: bytes, rules: ReadRules) -> VolumeHeader:
    """Parse and check the header of a file.

    Args:
        data: the file, or its beginning.
        rules: size guard, and what to do with time series.

    Returns:
        The header, with affine and notes.

    Raises:
        SampleError: naming the rule that the header breaks.
        EOFError: if ``data`` ends inside the header.
    """
    fields, end = _read_fields(data)
    if fields.get("ObjectType", "Image") != "Image":
        raise SampleError("dimensions", "the file holds a MetaIO object that is no image")
    shape_xyz, num_frames = _parse_shape(fields)
    dtype = _parse_dtype(fields)
    affine, notes = _parse_placement(fields, len(fields["DimSize"].split()))
    header = VolumeHeader(
        shape_xyz=shape_xyz,
        num_frames=num_frames,
        dtype=dtype,
        payload_offset=end,
        window_bits=ZLIB_WINDOW if _is_true(fields, "CompressedData") else None,
        affine_xyz=affine,
        notes=notes,
        modality=_MODALITIES.get(fields.get("Modality", "")),
    )
    header.allow(rules)
    return header


def _read_fields(data: bytes) -> tuple[dict[str, str], int]:
    """The fields by their names, and where the voxels begin."""
    fields: dict[str, str] = {}
    start = 0
    while (end := data.find(b"\n", start, MAX_HEADER_BYTES)) >= 0:
        key, equals, value = data[start:end].decode("latin-1").partition("=")
        start = end + 1
        if not equals and key.strip():
            raise SampleError("header_value", "a line of the header is not of the form Key = Value")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            if value.strip() not in ("LOCAL", "Local", "local"):
                message = "the voxels are in another file, which is not read; write both as one .mha file"
                raise SampleError("header_pair", message)
            return fields, start
    if len(data) >= MAX_HEADER_BYTES:
        raise SampleError("header_value", f"the header does not name ElementDataFile in its first {MAX_HEADER_BYTES:,} bytes")
    raise EOFError("more bytes are needed")


def _is_true(fields: dict[str, str], *names: str) -> bool:
    value = _find(fields, names) or "False"
    return value[:1] in ("T", "t", "1")


def _find(fields: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if name in fields), None)


def _parse_shape(fields: dict[str, str]) -> tuple[tuple[int, int, int], int]:
    for name in ("NDims", "DimSize", "ElementType"):
        if name not in fields:
            raise SampleError("header_value", f"the header does not state {name}")
    sizes = parse_numbers(fields["DimSize"], "DimSize", int)
    num_axes = parse_numbers(fields["NDims"], "NDims", int)
    expect_count(num_axes, 1, "NDims")
    expect_count(sizes, num_axes[0], "DimSize")
    check_sizes(sizes)
    if (channels := fields.get("ElementNumberOfChannels", "1")) != "1":
        parse_numbers(channels, "ElementNumberOfChannels", int)
        raise SampleError("vector", f"the header says {int(channels)} channels; vectors in each voxel are not read")
    x, y, z, frames = [*sizes, 1, 1][:4]
    return (x, y, z), frames


def _parse_dtype(fields: dict[str, str]) -> np.dtype[np.generic]:
    code = _TYPES.get(fields["ElementType"])
    if code is None:
        raise SampleError("datatype", "the header's ElementType is no real scalar of MetaIO; other types are not read")
    if not _is_true({"BinaryData": "True"} | fields, "BinaryData"):  # so does ITK where the field is not there
        raise SampleError("datatype", "the voxels are written as text (BinaryData = False), which is not read; write them binary")
    return np.dtype((">" if _is_true(fields, *_BIG_ENDIAN) else "<") + code)


def _parse_placement(fields: dict[str, str], num_axes: int) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """The affine to (right, anterior, superior), and what was decided; of a time series, that of its axes in space."""
    count = min(num_axes, 3)
    spacing, directions, origin = np.ones(3), np.eye(3), np.zeros(3)
    if stated := _find(fields, _SPACING):
        spacing[:count] = _take(parse_numbers(stated, _SPACING[0], float), num_axes, _SPACING[0])[:count]
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise SampleError("singular_affine", f"ElementSpacing is {spacing[:count].tolist()} mm; all must be positive")
    matrix = _find(fields, _DIRECTIONS)
    if matrix:
        cosines = _take(parse_numbers(matrix, _DIRECTIONS[0], float), num_axes**2, _DIRECTIONS[0])
        values = np.reshape(cosines, (num_axes, num_axes))
        directions[:count, :count] = values[:count, :count]
    if stated := _find(fields, _ORIGIN):
        origin[:count] = _take(parse_numbers(stated, _ORIGIN[0], float), num_axes, _ORIGIN[0])[:count]
    affine = build_affine(directions * spacing[:, None], origin, _TO_RAS)
    return affine, () if matrix else (NO_ORIENTATION_NOTE,)


def _take(values: tuple[float, ...], count: int, field: str) -> tuple[float, ...]:
    expect_count(values, count, field)
    return values
