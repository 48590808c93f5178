"""NumPy's .npy files: arrays of two axes, or RGB, are images; arrays of three are volumes without a place in the patient."""

from __future__ import annotations

import math

import numpy as np

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.image_sample import build_image
from crossdim.pipelines.readers.npy_header import MAGIC, NpyHeader, parse_npy_header
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.volume_header import NO_PLACE_NOTE, VolumeHeader, build_lps_affine
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

#: Names of the formats: of images and of volumes.
NPY = "numpy"
NPY_VOLUME = "numpy volume"


def matches_image(head: bytes) -> bool:
    """Whether a file is an array that is an image.

    Args:
        head: its first bytes.

    Returns:
        False also where the header is damaged: :func:`matches_any` takes such a file, and its reader refuses it.
    """
    if not head.startswith(MAGIC):
        return False
    try:
        return parse_npy_header(head).is_image
    except (SampleError, EOFError):
        return False


def matches_any(head: bytes) -> bool:
    """Whether a file begins as .npy files do."""
    return head.startswith(MAGIC)


def read_image_header(data: bytes, rules: ReadRules, *, whole: bool) -> HeaderInfo:
    """Read the header of an image.

    Args:
        data: the file, or its beginning.
        rules: size guards.
        whole: whether ``data`` is all of the file.

    Returns:
        Format and shape (H, W).

    Raises:
        SampleError: rule ``datatype``, ``too_large``, ``truncated`` or ``too_long``, or one of :func:`parse_npy_header`.
    """
    header = _parse_image_header(data, rules)
    if whole:
        _check_length(data, header)
    return HeaderInfo(format=NPY, shape=header.shape[:2])


def decode_image(item: RawItem) -> Sample:
    """Decode an array to an image.

    Args:
        item: the file.

    Returns:
        (1, H, W) of an array (H, W), (3, H, W) of one (H, W, 3); uint8 or uint16, as stored.

    Raises:
        SampleError: as :func:`read_image_header`; ``truncated``, ``too_long`` or ``constant``.
    """
    header = _parse_image_header(item.data, item.rules)
    _check_length(item.data, header)
    stored = np.frombuffer(item.data, header.dtype, offset=header.data_offset)
    array = stored.reshape(header.shape, order="F" if header.fortran_order else "C")
    array_CHW = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return build_image(item, np.ascontiguousarray(array_CHW, header.dtype.newbyteorder("=")))


def parse_volume_header(data: bytes, rules: ReadRules) -> VolumeHeader:
    """Parse the header of a volume.

    Args:
        data: the file, or its beginning.
        rules: size guards.

    Returns:
        What it says. No array states where it lies: axes are (z, y, x) in LPS with voxels of 1 mm, which is noted.

    Raises:
        SampleError: rule ``dimensions`` for arrays that are neither images nor volumes, ``too_large``, or one of
            :func:`parse_npy_header`.
        EOFError: if ``data`` ends inside the header.
    """
    header = parse_npy_header(data)
    if len(header.shape) != 3:
        raise SampleError(
            "dimensions",
            f"the array has shape {header.shape}; (H, W) and (H, W, 3) are images, (D, H, W) are volumes: save each as a file",
        )
    fastest_first = range(3) if header.fortran_order else range(2, -1, -1)
    affine = build_lps_affine(fastest_first)
    x, y, z = (header.shape[axis] for axis in fastest_first)
    found = VolumeHeader(
        shape_xyz=(x, y, z), dtype=header.dtype, payload_offset=header.data_offset, affine_xyz=affine, notes=(NO_PLACE_NOTE,)
    )
    found.allow(rules)
    return found


def _parse_image_header(data: bytes, rules: ReadRules) -> NpyHeader:
    try:
        header = parse_npy_header(data)
    except EOFError as error:
        raise SampleError("truncated", f"the file ends after {len(data):,} bytes, inside its header") from error
    if header.dtype.kind != "u" or header.dtype.itemsize > 2:
        raise SampleError(
            "datatype", f"an image of {header.dtype.name}; images are uint8 or uint16: scale it, or save (1, H, W) as a volume"
        )
    rules.allow_values(math.prod(header.shape), header.shape)
    return header


def _check_length(data: bytes, header: NpyHeader) -> None:
    promised = header.data_offset + header.num_bytes
    if len(data) != promised:
        rule = "truncated" if len(data) < promised else "too_long"
        raise SampleError(rule, f"the header promises {promised:,} bytes; the file has {len(data):,}")
