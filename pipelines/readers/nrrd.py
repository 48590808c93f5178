"""Recognise NRRD files, and parse their headers: ``field: value`` lines up to an empty one.

Written after the definition of the format (teem.sourceforge.net/nrrd/format.html), and held to SimpleITK.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.inflate import GZIP_WINDOW
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

#: Name of the format.
NRRD = "nrrd"
MAGIC = b"NRRD00"
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_CODES = {word: code for code, words in _TYPES.items() for word in words}
#: By which the axes of a space become right, anterior and superior; of ITK's for spaces that no patient lies in.
_SPACES = {
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
}
_LPS = (-1.0, -1.0, 1.0)
_UNIT_MM = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "um": 0.001, "micron": 0.001, "cm": 10.0, "m": 1000.0}
#: Kinds of axes along which voxels lie in space; the last two are how writers say that they do not know.
_SPATIAL_KINDS = frozenset({"domain", "space", "???", "none"})
UNITS_NOTE = "unit of lengths not known, taken as mm"
_PAIR = "the voxels are in another file, which is not read; write both as one .nrrd file"
#: A header by itself may end without an empty line.
_ELSEWHERE = re.compile(rb"\ndata ?file: ", re.IGNORECASE)
_VECTOR = re.compile(r"none|\(([^()]*)\)", re.IGNORECASE)


def matches(head: bytes) -> bool:
    """Whether the first bytes of a file are a NRRD header, valid or not."""
    return head.startswith(MAGIC)


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
    fields, keys, end = _read_fields(data)
    sizes = _parse_sizes(fields)
    shape_xyz, num_frames = _parse_shape(fields, sizes)
    affine, notes = _parse_placement(fields, len(sizes))
    header = VolumeHeader(
        shape_xyz=shape_xyz,
        num_frames=num_frames,
        dtype=_parse_dtype(fields),
        payload_offset=end,
        window_bits=_parse_encoding(fields),
        affine_xyz=affine,
        notes=notes,
        labels=any(key.startswith("Segment0_") for key in keys),  # a segmentation of 3D Slicer
    )
    header.allow(rules)
    return header


def _read_fields(data: bytes) -> tuple[dict[str, str], set[str], int]:
    """The fields by their names, the names of key/value pairs, and where the voxels begin."""
    found = re.search(rb"\r?\n\r?\n", data[:MAX_HEADER_BYTES])
    if found is None:
        if _ELSEWHERE.search(data[:MAX_HEADER_BYTES]):
            raise SampleError("header_pair", _PAIR)
        if len(data) >= MAX_HEADER_BYTES:
            raise SampleError("header_value", f"the header does not end in its first {MAX_HEADER_BYTES:,} bytes")
        raise EOFError("more bytes are needed")
    fields: dict[str, str] = {}
    keys: set[str] = set()
    for line in data[: found.start()].decode("latin-1").splitlines()[1:]:
        if line.startswith("#"):
            continue
        key, is_pair, _ = line.partition(":=")
        name, is_field, value = line.partition(": ")
        if is_pair and not (is_field and len(name) < len(key)):
            keys.add(key)
        elif is_field:
            fields[name.strip().lower()] = value.strip()
        else:
            raise SampleError("header_value", "a line of the header is neither a field nor a key with a value")
    if "data file" in fields or "datafile" in fields:
        raise SampleError("header_pair", _PAIR)
    for name in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(name, "0") != "0":
            raise SampleError("offset", f"the header's field {name!r} is not 0, which is not read; write the file anew")
    return fields, keys, found.end()


def _require(fields: dict[str, str], name: str) -> str:
    if name not in fields:
        raise SampleError("header_value", f"the header does not state {name!r}")
    return fields[name]


def _parse_sizes(fields: dict[str, str]) -> tuple[int, ...]:
    sizes = parse_numbers(_require(fields, "sizes"), "sizes", int)
    dimension = parse_numbers(_require(fields, "dimension"), "dimension", int)
    expect_count(dimension, 1, "dimension")
    expect_count(sizes, dimension[0], "sizes")
    check_sizes(sizes)
    return sizes


def _parse_shape(fields: dict[str, str], sizes: Sequence[int]) -> tuple[tuple[int, int, int], int]:
    outside = _find_axes_outside(fields, len(sizes))
    if outside and len(sizes) - len(outside) < 3:
        raise SampleError("vector", f"only {len(sizes) - len(outside)} of {len(sizes)} axes lie in space; a volume has 3")
    if outside not in ([], [3]):
        axis = outside[0]
        raise SampleError(
            "vector", f"axis {axis} of shape {list(sizes)} does not lie in space; vectors in each voxel are not read"
        )
    x, y, z, frames = [*sizes, 1, 1][:4]
    return (x, y, z), frames


def _find_axes_outside(fields: dict[str, str], num_axes: int) -> list[int]:
    """The axes that do not lie in space: without a direction where others have one, or of a kind that is no domain."""
    vectors = _read_directions(fields, num_axes)
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * num_axes
    expect_count(kinds, num_axes, "kinds")
    is_stated = any(vector is not None for vector in vectors)
    return [
        axis
        for axis, (vector, kind) in enumerate(zip(vectors, kinds, strict=True))
        if (is_stated and vector is None) or kind not in _SPATIAL_KINDS
    ]


def _parse_dtype(fields: dict[str, str]) -> np.dtype[np.generic]:
    code = _CODES.get(_require(fields, "type").lower())
    if code is None:
        raise SampleError("datatype", "the header's type is no real scalar of NRRD; blocks and unknown types are not read")
    endian = fields.get("endian", "").lower()
    if code[1] != "1" and endian not in ("little", "big"):
        raise SampleError("header_value", "the header's field 'endian' is neither little nor big; which is needed above 8 bits")
    return np.dtype((">" if endian == "big" else "<") + code)


def _parse_encoding(fields: dict[str, str]) -> int | None:
    encoding = _require(fields, "encoding").lower()
    if encoding == "raw":
        return None
    if encoding in ("gz", "gzip"):
        return GZIP_WINDOW
    raise SampleError("encoding", "the header's encoding is neither raw nor gzip; write the file anew with one of these")


def _read_directions(fields: dict[str, str], num_axes: int) -> list[tuple[float, ...] | None]:
    """A step along each axis in space; None for an axis that lies not in space, and for all if the header has no directions."""
    text = fields.get("space directions")
    if text is None:
        return [None] * num_axes
    vectors: list[tuple[float, ...] | None] = [
        None if found.group(1) is None else parse_numbers(found.group(1).replace(",", " "), "space directions", float)
        for found in _VECTOR.finditer(text)
    ]
    expect_count(vectors, num_axes, "space directions")
    return [None if vector is None or not np.isfinite(vector).all() else vector for vector in vectors]


def _parse_placement(fields: dict[str, str], num_axes: int) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """The affine to (right, anterior, superior), and what was decided."""
    steps = [vector for vector in _read_directions(fields, num_axes) if vector is not None]
    if not steps:
        spacings = np.ones(3)
        if "spacings" in fields:
            stated = parse_numbers(fields["spacings"], "spacings", float)
            expect_count(stated, num_axes, "spacings")
            spacings[: min(num_axes, 3)] = stated[:3]
        return build_affine(np.diag(spacings), np.zeros(3), _LPS), (NO_ORIENTATION_NOTE,)
    origin = parse_numbers(re.sub(r"[(),]", " ", fields.get("space origin", "")), "space origin", float) or (0.0,) * len(steps[0])
    for vector in (*steps, origin):
        expect_count(vector, len(steps[0]), "space directions" if vector is not origin else "space origin")
    directions_mm = np.eye(3)
    placed = np.array(steps)[:3, :3]  # a fourth axis of space is time
    directions_mm[: placed.shape[0], : placed.shape[1]] = placed
    origin_mm = np.zeros(3)
    origin_mm[: len(origin[:3])] = origin[:3]
    unit_mm, notes = _parse_unit(fields)
    signs = _SPACES.get(fields.get("space", "").lower().removesuffix("-time"))
    if signs is None:
        notes = (*notes, NO_ORIENTATION_NOTE)
    return build_affine(directions_mm * unit_mm, origin_mm * unit_mm, signs or _LPS), notes


def _parse_unit(fields: dict[str, str]) -> tuple[float, tuple[str, ...]]:
    """Millimetres of the unit of lengths; where none is stated, which is usual, and of the patient's spaces, these are mm."""
    words = {word.lower() for word in re.findall(r'"([^"]*)"', fields.get("space units", ""))[:3]} - {""}
    if not words:
        return 1.0, ()
    units = {_UNIT_MM.get(word) for word in words}
    if len(units) > 1:
        raise SampleError("header_value", "the header's field 'space units' states different units")
    unit = units.pop()
    return (unit, ()) if unit else (1.0, (UNITS_NOTE,))
