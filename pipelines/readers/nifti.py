"""Decode NIfTI files, plain or gzipped, to volumes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.inflate import GZIP_MAGIC, inflate_head, inflate_start, is_cut
from crossdim.pipelines.readers.nifti_header import HEADER_BYTES, NiftiHeader, looks_like_nifti, parse_header
from crossdim.pipelines.readers.raw import RawItem, ReadRules, add_note
from crossdim.pipelines.readers.volume_values import Mask, Volume, compute_range, fill_outside, offset_note
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

#: Name of the format.
NIFTI = "nifti"
#: Bytes after the last voxel, with which writers fill blocks. More means that the header states too few voxels. Our choice.
MAX_TRAILING_BYTES = 1 << 16


def read_header_bytes(data: bytes) -> bytes:
    """The first bytes of a NIfTI file, inflated if they are gzip; the content decides, not the name."""
    return inflate_head(data, HEADER_BYTES[2]) if data.startswith(GZIP_MAGIC) else data[: HEADER_BYTES[2]]


def matches(head: bytes, *, is_promised: bool) -> bool:
    """Whether the first bytes of a file are NIfTI, plain or in gzip.

    Args:
        head: the first bytes.
        is_promised: whether the file has a suffix of NIfTI; a damaged gzip stream is an error only then.

    Returns:
        True for a NIfTI header, valid or not.

    Raises:
        SampleError: rule ``truncated`` or ``gzip`` for a file with such a suffix that is cut, or damaged, inside the header.
    """
    if not head.startswith(GZIP_MAGIC):
        return looks_like_nifti(head)
    try:
        start = inflate_head(head, HEADER_BYTES[2])
        if is_promised and len(start) < HEADER_BYTES[1] and is_cut(head):
            message = f"the gzip stream ends after {len(start)} bytes of content, inside the NIfTI header; the file is cut"
            raise SampleError("truncated", message)
        return looks_like_nifti(start)
    except SampleError:
        if is_promised:
            raise
        return False


def read_header(data: bytes, rules: ReadRules, *, whole: bool = True) -> HeaderInfo:
    """Read the header of a NIfTI file.

    Args:
        data: the file, or its beginning.
        rules: the size guard.
        whole: whether ``data`` is all of it; the header stands at the beginning, so that nothing depends on it.

    Returns:
        Shape (D, H, W), spacing in mm along the same axes, and the affine of voxels (x, y, z).

    Raises:
        SampleError: if the header is not sound.
    """
    header = parse_header(read_header_bytes(data), rules)
    x, y, z = header.shape_xyz
    sx, sy, sz = header.spacing_xyz_mm
    plain = header.num_frames == 1 and (header.slope, header.intercept) == (1.0, 0.0)
    return HeaderInfo(
        format=NIFTI,
        shape=(z, y, x),
        spacing_mm=(sz, sy, sx),
        affine=tuple(tuple(float(v) for v in row) for row in header.affine_xyz),
        plain=plain,
        labels=header.labels,
    )


def decode(item: RawItem) -> Sample:
    """Decode a NIfTI file to a volume.

    Returns:
        (1, D, H, W) float32 in physical units (slope and intercept applied); the file's x runs along W, y along H, z along D.

    Raises:
        SampleError: for damage, sizes that do not agree, an unusable affine, or a volume that shows nothing.
    """
    header = parse_header(read_header_bytes(item.data), item.rules)
    data, trailing = _read_content(item.data, header)
    volume_DHW = _read_first_frame(data, header)
    outside_DHW, note = replace_infinities(volume_DHW, item.rules)
    fill_outside(volume_DHW, outside_DHW, item.modality)
    affine = header.affine_xyz[:, [2, 1, 0, 3]]
    key, origin, patient = item.origin()
    sx, sy, sz = header.spacing_xyz_mm
    frames = f"first of {header.num_frames} frames" if header.num_frames > 1 else None
    sample = Sample(
        key=key,
        presentation=None,
        array=volume_DHW[None],
        modality=item.modality,
        scaling=compute_range(volume_DHW, outside_DHW, frames),
        origin=origin,
        spacing_mm=(sz, sy, sx),
        affine=tuple(tuple(float(v) for v in row) for row in affine),
        outside=outside_DHW,
        label=item.label,
        patient=patient,
    )
    return add_note(sample, frames, note, *header.notes, trailing, offset_note(volume_DHW, outside_DHW, item.modality))


def _read_content(packed: bytes, header: NiftiHeader) -> tuple[bytes | bytearray, str | None]:
    """Header and first frame, inflated, and a note of what stands behind the last voxel, inside of gzip or without it."""
    limit = header.end + MAX_TRAILING_BYTES
    data: bytes | bytearray = packed
    total = len(packed)
    if packed.startswith(GZIP_MAGIC):
        data, total = inflate_start(packed, header.offset + header.frame_bytes, limit)
    if total < header.end:
        raise SampleError("truncated", f"the header promises {header.end:,} bytes; the file has {total:,}")
    if total > limit:
        raise SampleError("too_long", f"the file holds {total:,} bytes; its header promises {header.end:,}")
    trailing = total - header.end
    return data, f"{trailing} bytes behind the last voxel left out" if trailing else None


def _read_first_frame(data: bytes | bytearray, header: NiftiHeader) -> npt.NDArray[np.float32]:
    x, y, z = header.shape_xyz
    stored = np.frombuffer(data, header.dtype, count=x * y * z, offset=header.offset).reshape(z, y, x)
    volume = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore"):  # what is too large for 32 bits becomes infinite, and is handled as such
        if (header.slope, header.intercept) == (1.0, 0.0):
            volume[:] = stored
            return volume
        for depth, plane in enumerate(stored):  # by planes: in 64 bits, a volume would need five times its memory
            volume[depth] = plane.astype(np.float64) * header.slope + header.intercept
    return volume


def replace_infinities(volume: Volume, rules: ReadRules) -> tuple[Mask | None, str | None]:
    """Replace infinite voxels, in place, by the largest or smallest finite value, by their sign.

    Args:
        volume: any shape; NaN voxels are left.
        rules: with the largest share of infinite voxels.

    Returns:
        The voxels that are NaN, and so background (SPM and FSL write them around the brain), or None; and a note of what was
        found.

    Raises:
        SampleError: rule ``not_finite`` if no voxel is finite, or too many are infinite.
    """
    good = np.isfinite(volume)
    if good.all():
        return None, None
    nan = np.isnan(volume)
    counts = {"NaN set to background": nan.sum(), "+Inf to the maximum": (volume == np.inf).sum()}
    counts["-Inf to the minimum"] = (volume == -np.inf).sum()
    infinite = int(np.count_nonzero(~good & ~nan))
    if not good.any() or infinite > rules.max_not_finite * volume.size:
        raise SampleError(
            "not_finite",
            f"{int(nan.sum()):,} NaN and {infinite:,} infinite voxels of {volume.size:,}; "
            f"at most {rules.max_not_finite:.0%} are taken for infinite by mistake, and some must be finite",
        )
    np.clip(volume, volume[good].min(), volume[good].max(), out=volume)  # leaves NaN
    listed = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return (nan if nan.any() else None), f"NaN or infinite voxels: {listed}"
