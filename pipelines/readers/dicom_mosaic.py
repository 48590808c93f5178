"""Siemens mosaics: all slices of a volume as tiles of one image, with their number and direction in private elements.

ImagePositionPatient of a mosaic is the corner of an image of the mosaic's size around the centre of the first tile's slice. Tiles
may follow the slices of the protocol or run against them, so their direction is that of the slice centres in the protocol, which
the CSA header of the series holds, from the centre where ImagePositionPatient puts the first tile. Without a protocol it is the
slice normal of the image's CSA header. Held to dcm2niix, and to the voxels of dicom2nifti.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array

Vector = npt.NDArray[np.float64]

_CSA_IMAGE, _CSA_SERIES, _NUM_IMAGES = 0x00291010, 0x00291020, 0x0019100A
_CSA_MAGIC = b"SV10"
_TAG, _ITEM = struct.Struct("<64si4sii4x"), struct.Struct("<4i")
#: Before the protocol in a CSA header, and behind it.
_PROTOCOL = re.compile(rb"### ASCCONV BEGIN.*?\n(.*?)### ASCCONV END ###", re.DOTALL)
_NORMAL_TOLERANCE = 0.01  # between direction and normal of the slices; ours


@dataclass(frozen=True, kw_only=True, slots=True)
class Mosaic:
    """The number of slices, and their headers in the order of the tiles: by rows, from the first column."""

    num_slices: int
    slices: tuple[SliceHeader, ...]


def read_mosaic(dataset: Any, header: SliceHeader) -> Mosaic:
    """Read how many slices a mosaic holds, and where they lie.

    Args:
        dataset: the header.
        header: what it says of the whole image.

    Returns:
        The header of each slice.

    Raises:
        SampleError: rule ``mosaic`` if its elements do not say it, or contradict each other.
    """
    image = _parse_csa(_read_bytes(dataset, _CSA_IMAGE))
    protocol = _parse_protocol(_read_bytes(dataset, _CSA_SERIES))
    counts = [*image.get("NumberOfImagesInMosaic", ()), *_read_count(dataset), *protocol.get("sSliceArray.lSize", ())]
    if not counts or not 1 <= counts[0] <= min(header.rows, header.columns) ** 2:
        raise SampleError(
            "mosaic", "a Siemens mosaic whose private elements do not tell the number of its slices; convert it to NIfTI"
        )
    tile = _place_first_tile(header, int(counts[0]))
    direction = _find_direction(protocol, tile, header) or tuple(image.get("SliceNormalVector", ()))
    normal = np.cross(tile.along_row, tile.down)
    if len(direction) != 3 or not abs(abs(float(normal @ direction)) - 1) < _NORMAL_TOLERANCE:
        raise SampleError(
            "mosaic", "a Siemens mosaic whose private elements do not tell the direction of its slices; convert it to NIfTI"
        )
    return Mosaic(
        num_slices=int(counts[0]),
        slices=tuple(
            replace(
                header,
                rows=tile.rows,
                columns=tile.columns,
                mosaic=False,
                position_mm=tuple(float(v) for v in tile.corner_mm + number * (header.thickness_mm or 0.0) * np.array(direction)),
                position_decimals=None,
            )
            for number in range(int(counts[0]))
        ),
    )


def _build_error(what: str) -> SampleError:
    return SampleError("mosaic", f"a Siemens mosaic {what}; convert it to NIfTI")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tile:
    """The first slice of a mosaic: its size, unit vectors, and the centre of its first pixel and of all of it (LPS, mm)."""

    rows: int
    columns: int
    along_row: Vector
    down: Vector
    corner_mm: Vector
    centre_mm: Vector


def _place_first_tile(header: SliceHeader, num_slices: int) -> _Tile:
    if header.position_mm is None or header.orientation is None or header.spacing_mm is None or header.thickness_mm is None:
        raise _build_error("that does not state position, orientation and spacing")
    tiles = _count_tiles(num_slices)
    rows, columns = header.rows // tiles, header.columns // tiles
    if (rows * tiles, columns * tiles) != (header.rows, header.columns):
        raise SampleError(
            "mosaic", f"a Siemens mosaic of {header.rows}x{header.columns} pixels, which are no {tiles}x{tiles} tiles"
        )
    along_row, down = np.array(header.orientation).reshape(2, 3)
    row_mm, column_mm = header.spacing_mm
    corner = np.array(header.position_mm)
    corner = corner + down * row_mm * (header.rows - rows) / 2 + along_row * column_mm * (header.columns - columns) / 2
    centre = corner + down * row_mm * (rows - 1) / 2 + along_row * column_mm * (columns - 1) / 2
    return _Tile(rows=rows, columns=columns, along_row=along_row, down=down, corner_mm=corner, centre_mm=centre)


def cut_tiles(pixels: Array, mosaic: Mosaic) -> Array:
    """Cut a mosaic into its slices.

    Args:
        pixels: (H, W).
        mosaic: what it holds.

    Returns:
        (slices, rows, columns).
    """
    tiles = _count_tiles(mosaic.num_slices)
    height, width = (side // tiles for side in pixels.shape)
    cut = pixels.reshape(tiles, height, tiles, width).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut.reshape(-1, height, width)[: mosaic.num_slices])


def _count_tiles(num_slices: int) -> int:
    """Tiles along each side."""
    return math.isqrt(num_slices - 1) + 1


def _read_bytes(dataset: Any, tag: int) -> bytes:
    element = dataset.get(tag)
    value = getattr(element, "value", None)
    return value if isinstance(value, bytes) else b""


def _read_count(dataset: Any) -> list[float]:
    value = getattr(dataset.get(_NUM_IMAGES), "value", None)
    if isinstance(value, bytes) and len(value) == 2:
        value = int.from_bytes(value, "little")
    return [float(value)] if isinstance(value, int) else []


def _parse_csa(data: bytes) -> dict[str, Sequence[float]]:
    """The numbers of a CSA header of version 2 by the names of their tags; what is damaged ends it."""
    found: dict[str, Sequence[float]] = {}
    if not data.startswith(_CSA_MAGIC) or len(data) < 16:
        return found
    offset = 16
    for _ in range(min(int.from_bytes(data[8:12], "little"), 1000)):
        if offset + _TAG.size > len(data):
            break
        name, _, _, _, num_items = _TAG.unpack_from(data, offset)
        offset += _TAG.size
        values = []
        for _ in range(num_items):
            if offset + _ITEM.size > len(data):
                return found
            length = _ITEM.unpack_from(data, offset)[1]
            offset += _ITEM.size
            if length < 0 or offset + length > len(data):
                return found
            values.append(data[offset : offset + length].rstrip(b" \0"))
            offset += -(-length // 4) * 4
        numbers = [_to_number(value) for value in values if value]
        found[name.split(b"\0")[0].decode("latin-1")] = [number for number in numbers if number is not None]
    return found


def _to_number(text: bytes) -> float | None:
    try:
        return float(int(text, 16)) if text.startswith(b"0x") else float(text)
    except ValueError:
        return None


def _parse_protocol(data: bytes) -> dict[str, Sequence[float]]:
    """The numbers of the protocol's text by their names."""
    found = _PROTOCOL.search(data)
    lines = [line.partition(b"=") for line in (found.group(1) if found else b"").splitlines()]
    numbers = {key.strip().decode("latin-1"): _to_number(value.strip()) for key, _, value in lines}
    return {key: [number] for key, number in numbers.items() if number is not None}


def _find_direction(protocol: dict[str, Sequence[float]], tile: _Tile, header: SliceHeader) -> tuple[float, ...]:
    """From the slice of the protocol where the first tile lies to the one at the other end; empty if it lies at neither."""
    last = int((protocol.get("sSliceArray.lSize") or [0])[0]) - 1
    first_mm, last_mm = (_read_centre(protocol, number) for number in (0, last))
    length = float(np.linalg.norm(last_mm - first_mm))
    if last < 1 or not length:
        return ()
    direction = (last_mm - first_mm) / length
    for centre, signed in ((first_mm, direction), (last_mm, -direction)):
        apart = abs(float((tile.centre_mm - centre) @ direction))
        if apart < (header.thickness_mm or 0.0) / 2:
            return tuple(float(v) for v in signed)
    return ()


def _read_centre(protocol: dict[str, Sequence[float]], number: int) -> Vector:
    """The centre of a slice; coordinates that are 0 are not written."""
    names = (f"sSliceArray.asSlice[{number}].sPosition.{axis}" for axis in ("dSag", "dCor", "dTra"))
    return np.array([(protocol.get(name) or [0.0])[0] for name in names])
