"""The NIfTI header (versions 1 and 2, either byte order), checked for consistency before it is used."""

from __future__ import annotations

import struct
from typing import Any

import nibabel
import numpy as np

from crossdim.pipelines.readers.inflate import GZIP_MAGIC, GZIP_WINDOW, inflate_head
from crossdim.pipelines.readers.nifti_affine import compute_placement
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.volume_header import VolumeHeader
from crossdim.storage_schema.errors import SampleError

HEADER_BYTES = {1: 348, 2: 540}
_MAGIC = {b"n+1\0": 1, b"n+2\0\r\n\x1a\n": 2}
#: NIFTI_INTENT_LABEL and NIFTI_INTENT_NEURONAME: voxels are numbers in a list of names.
_LABEL_INTENTS = frozenset({1002, 1003})
_PAIR_MAGIC = (b"ni1\0", b"ni2\0\r\n\x1a\n")
#: NIfTI datatype codes of real scalars: 1, 2, 4 and 8-byte integers, float32 and float64.
SCALARS = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


def looks_like_nifti(head: bytes) -> bool:
    """Whether the first bytes are meant to be a NIfTI header, valid or not."""
    sizes = {struct.unpack(order + "i", head[:4])[0] for order in "<>"} if len(head) >= 4 else set()
    return bool(sizes & set(HEADER_BYTES.values())) or head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0")


def parse_header(data: bytes, rules: ReadRules) -> VolumeHeader:
    """Parse and check the header of a file, plain or in gzip; its content decides, not its name.

    Args:
        data: the file, or its beginning.
        rules: size guard, and what to do with time series.

    Returns:
        The header, with affine and notes.

    Raises:
        SampleError: naming the rule that the header breaks.
    """
    packed = data.startswith(GZIP_MAGIC)
    head = inflate_head(data, HEADER_BYTES[2]) if packed else data[: HEADER_BYTES[2]]
    version = _version(head)
    kind: Any = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    header = kind(head[: HEADER_BYTES[version]], check=False)
    shape_xyz, num_frames = _shape(header)
    code = int(header["datatype"])
    if code not in SCALARS:
        raise SampleError("datatype", f"NIfTI datatype {code} is no real scalar; complex, colour and unknown types are not read")
    dtype = np.dtype(header.endianness + SCALARS[code])
    if int(header["bitpix"]) != dtype.itemsize * 8:
        raise SampleError(
            "datatype", f"NIfTI datatype {code} has {dtype.itemsize * 8} bits; the header says bitpix {int(header['bitpix'])}"
        )
    placed = compute_placement(header)
    slope, intercept = _scaling(header)
    checked = VolumeHeader(
        shape_xyz=shape_xyz,
        num_frames=num_frames,
        dtype=dtype,
        skip_bytes=_offset(header, version),
        window_bits=GZIP_WINDOW if packed else None,
        slope=slope,
        intercept=intercept,
        affine_xyz=placed.affine_xyz,
        notes=placed.notes,
        labels=int(header["intent_code"]) in _LABEL_INTENTS,
    )
    checked.allow(rules)
    return checked


def _version(head: bytes) -> int:
    sizes = [struct.unpack(order + "i", head[:4])[0] for order in "<>"] if len(head) >= 4 else []
    magic_1, magic_2 = head[344:348], head[4:12]
    if magic_1 in _PAIR_MAGIC or magic_2 in _PAIR_MAGIC:
        raise SampleError("header_pair", "a .hdr/.img pair is not read; join it into one .nii file")
    version = _MAGIC.get(magic_2) or _MAGIC.get(magic_1)
    if version is None:
        if any(size in HEADER_BYTES.values() for size in sizes):
            raise SampleError("wrong_magic", "the four bytes at 344 are not the magic number of a NIfTI file")
        raise SampleError("not_nifti", "the file does not start with a NIfTI header")
    if HEADER_BYTES[version] not in sizes:
        raise SampleError("wrong_header_size", f"sizeof_hdr is {sizes[0]}; NIfTI-{version} has {HEADER_BYTES[version]}")
    if len(head) < HEADER_BYTES[version]:
        raise SampleError("truncated", f"the file has {len(head)} bytes; its header alone has {HEADER_BYTES[version]}")
    return version


def _shape(header: Any) -> tuple[tuple[int, int, int], int]:
    dim = [int(n) for n in header["dim"]]
    if not 2 <= dim[0] <= 7:
        raise SampleError("dimensions", f"dim[0] is {dim[0]}; a picture has 2 to 7 dimensions")
    sizes = dim[1 : dim[0] + 1]
    if min(sizes) < 1:
        raise SampleError("dimensions", f"the header says shape {sizes}; every side needs at least one voxel")
    x, y, z, frames, *vector = [*sizes, 1, 1, 1][: max(len(sizes), 4)]
    if any(n > 1 for n in vector):
        raise SampleError("vector", f"the header says shape {sizes}; vectors in each voxel are not read")
    return (x, y, z), frames


def _offset(header: Any, version: int) -> int:
    offset = float(header["vox_offset"])
    if not np.isfinite(offset) or offset < HEADER_BYTES[version]:
        raise SampleError("offset", f"vox_offset is {offset}; voxels start after the {HEADER_BYTES[version]} bytes of the header")
    return int(offset)


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept; the standard says that slope 0 means none, of either.

    Raises:
        SampleError: rule ``rescale`` for a slope with an intercept that is no finite number.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not np.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise SampleError("rescale", f"scl_slope is {slope:g} and scl_inter {intercept}; a finite number is needed, correct it")
    return slope, intercept
