"""The middle plane and the header fields of a NIfTI file that may be damaged."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

import nibabel
import numpy as np

from crossdim.pipelines.readers.inflate import GZIP_MAGIC, GZIP_WINDOW
from crossdim.pipelines.readers.nifti_header import SCALARS
from crossdim.storage_schema.sample import Array

#: Bytes of content that are inflated at most. Ours.
MOST_BYTES = 256 << 20
_STEP_BYTES = 1 << 20
#: Of numbers that are not read as volumes, and can be drawn: complex ones, by their magnitude.
_COMPLEX = {32: "c8", 1792: "c16"}
#: Where a header of version 1 ends; one of version 2 begins with its own size.
_SIZES: dict[int, Any] = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}


def inflate_leniently(data: bytes, num_bytes: int) -> bytes:
    """Inflate the first bytes of a gzip file, as far as it is sound; its checksum is not compared.

    Args:
        data: the file, or its beginning; one that is no gzip is taken as it is.
        num_bytes: of content, at most.

    Returns:
        At most ``num_bytes`` bytes.
    """
    if not data.startswith(GZIP_MAGIC):
        return data[:num_bytes]
    held, start = bytearray(), 0
    with contextlib.suppress(zlib.error):  # what came before the damage is shown
        while data.startswith(GZIP_MAGIC, start) and len(held) < num_bytes:
            member = zlib.decompressobj(GZIP_WINDOW)
            while len(held) < num_bytes and not member.eof:
                given = member.unconsumed_tail or data[start : start + _STEP_BYTES]
                start += 0 if member.unconsumed_tail else len(given)
                if not given:
                    break
                held += member.decompress(given, min(_STEP_BYTES, num_bytes - len(held)))
            start -= len(member.unused_data)
    return bytes(held)


def read_nifti(data: bytes, start: bytes) -> tuple[dict[str, str], Array | None]:
    """Read header fields and the middle axial plane of the first frame, or the last plane that the file holds.

    Args:
        data: the file, or its beginning.
        start: its first bytes, inflated.

    Returns:
        The fields, and the plane (H, W) with the first row on top as radiologists hang it; None if there is none.
    """
    for size in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
        if size in _SIZES and len(start) >= size:
            header = _SIZES[size](start[:size], check=False)
            return _list_fields(header), _read_plane(data, header)
    return {}, None


def _list_fields(header: Any) -> dict[str, str]:
    code = int(header["datatype"])
    dim = [int(number) for number in header["dim"]]
    sides = dim[1 : dim[0] + 1] if 1 <= dim[0] <= 7 else dim
    fields: dict[str, Any] = {
        "dim": " x ".join(map(str, sides)),
        "pixdim": ", ".join(f"{float(number):.4g}" for number in header["pixdim"][1 : 1 + max(len(sides), 3)]),
        "datatype": f"{code} ({np.dtype(SCALARS[code]).name})" if code in SCALARS else code,
        "bitpix": int(header["bitpix"]),
        "vox_offset": f"{float(header['vox_offset']):g}",
        "scl_slope": f"{float(header['scl_slope']):g}",
        "scl_inter": f"{float(header['scl_inter']):g}",
        "xyzt_units": int(header["xyzt_units"]),
        "qform_code": int(header["qform_code"]),
        "sform_code": int(header["sform_code"]),
        "intent_code": int(header["intent_code"]),
    }
    return {name: str(value) for name, value in fields.items()}


def _read_plane(data: bytes, header: Any) -> Array | None:
    code, dim, offset = int(header["datatype"]), [int(number) for number in header["dim"]], float(header["vox_offset"])
    kinds = SCALARS | _COMPLEX
    if code not in kinds or min(dim[1:3]) < 1 or not 0 <= offset < MOST_BYTES:
        return None
    dtype = np.dtype(header.endianness + kinds[code])
    width, height, depth = dim[1], dim[2], max(dim[3], 1) if dim[0] >= 3 else 1
    plane_bytes, first = width * height * dtype.itemsize, int(offset)
    content = inflate_leniently(data, min(MOST_BYTES, first + plane_bytes * (depth // 2 + 1)))
    whole = (len(content) - first) // plane_bytes
    if whole < 1:
        return None
    start = first + plane_bytes * min(depth // 2, whole - 1)
    plane = np.frombuffer(content, dtype, count=width * height, offset=start).reshape(height, width)
    # y runs to the front in most files, which is shown at the top.
    return (abs(plane) if code in _COMPLEX else plane)[::-1].astype(np.float32)
