"""Read volumes that lie in one file: their numbers, from the place that a header names, as a sample in physical units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.inflate import inflate_start, iterate_inflated
from crossdim.pipelines.readers.raw import RawItem, ReadRules, add_note
from crossdim.pipelines.readers.volume_header import VolumeHeader
from crossdim.pipelines.readers.volume_values import Mask, Volume, compute_range, fill_outside, offset_note
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

#: Bytes after the last voxel, with which writers fill blocks. More means that the header states too few voxels. Our choice.
MAX_TRAILING_BYTES = 1 << 16
_STEP_BYTES = 1 << 20


class ParseHeader(Protocol):
    """Parses and checks the header of one format."""

    def __call__(self, data: bytes, rules: ReadRules) -> VolumeHeader:
        """What the header of a file says.

        Args:
            data: the file, or its beginning.
            rules: size guards, and what to do with time series.

        Raises:
            SampleError: naming the rule that the header breaks.
            EOFError: if ``data`` ends inside the header.
        """


def read_header(parse: ParseHeader, name: str, data: bytes, rules: ReadRules, *, whole: bool = True) -> HeaderInfo:
    """Read the header of a file.

    Args:
        parse: of its format.
        name: of the format.
        data: the file, or its beginning.
        rules: the size guard.
        whole: whether ``data`` is all of it.

    Returns:
        Shape (D, H, W), spacing in mm along the same axes, and the affine of voxels (x, y, z).

    Raises:
        SampleError: if the header is not sound.
        EOFError: if ``data`` is a beginning that ends inside the header.
    """
    return describe_header(parse_whole(parse, data, rules) if whole else parse(data, rules), name)


def describe_header(header: VolumeHeader, name: str) -> HeaderInfo:
    """What the header of a volume says, in the terms that all formats share.

    Args:
        header: checked.
        name: of the format.

    Returns:
        Shape (D, H, W), spacing in mm along the same axes, and the affine of voxels (x, y, z).
    """
    x, y, z = header.shape_xyz
    sx, sy, sz = header.spacing_xyz_mm
    return HeaderInfo(
        format=name,
        shape=(z, y, x),
        spacing_mm=(sz, sy, sx),
        modality=header.modality,
        affine=tuple(tuple(float(v) for v in row) for row in header.affine_xyz),
        plain=header.num_frames == 1 and (header.slope, header.intercept) == (1.0, 0.0),
        labels=header.labels,
    )


def parse_whole(parse: ParseHeader, data: bytes, rules: ReadRules) -> VolumeHeader:
    """Parse the header of a whole file, which may be cut inside of it.

    Args:
        parse: of its format.
        data: the file.
        rules: size guards.

    Returns:
        What it says.

    Raises:
        SampleError: rule ``truncated`` for a file that ends inside its header, or another.
    """
    try:
        return parse(data, rules)
    except EOFError as error:
        raise SampleError("truncated", f"the file ends after {len(data):,} bytes, inside its header") from error


def decode(parse: ParseHeader, item: RawItem) -> Sample:
    """Decode a file to a volume.

    Args:
        parse: of its format.
        item: the file.

    Returns:
        (1, D, H, W) float32 in physical units (slope and intercept applied); the file's x runs along W, y along H, z along D.

    Raises:
        SampleError: for damage, sizes that do not agree, an unusable affine, or a volume that shows nothing.
    """
    header = parse_whole(parse, item.data, item.rules)
    payload, trailing = _read_payload(item.data, header)
    return build_volume(item, _read_first_frame(payload, header), header, trailing)


def build_volume(item: RawItem, volume_DHW: Volume, header: VolumeHeader, *notes: str | None) -> Sample:
    """Build the sample of a volume from its numbers.

    Args:
        item: the file.
        volume_DHW: float32, in physical units; changed in place where it is not finite.
        header: of the file.
        notes: what else was found, beside what the header and the numbers tell.

    Returns:
        (1, D, H, W); the file's x runs along W, y along H, z along D.

    Raises:
        SampleError: for a volume that shows nothing.
    """
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
    return add_note(sample, frames, note, *header.notes, *notes, offset_note(volume_DHW, outside_DHW, item.modality))


def _read_payload(data: bytes, header: VolumeHeader) -> tuple[bytearray | memoryview, str | None]:
    """The payload up to the end of its first frame, inflated, and a note of what stands behind its last voxel."""
    promised, limit = header.payload_bytes, header.payload_bytes + MAX_TRAILING_BYTES
    stored = memoryview(data)[header.payload_offset :]
    payload: bytearray | memoryview = stored
    total = len(stored)
    if header.window_bits:
        payload, total = inflate_start(stored, header.skip_bytes + header.frame_bytes, limit, header.window_bits)
    where = header.payload_offset if not header.window_bits else 0
    if total < promised:
        raise SampleError("truncated", f"the header promises {where + promised:,} bytes; the file has {where + total:,}")
    if total > limit:
        raise SampleError("too_long", f"the file holds {where + total:,} bytes; its header promises {where + promised:,}")
    trailing = total - promised
    return payload, f"{trailing} bytes behind the last voxel left out" if trailing else None


def _read_first_frame(payload: bytearray | memoryview, header: VolumeHeader) -> npt.NDArray[np.float32]:
    x, y, z = header.shape_xyz
    stored = np.frombuffer(payload, header.dtype, count=header.num_voxels, offset=header.skip_bytes).reshape(z, y, x)
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


def iterate_slices(data: bytes, header: VolumeHeader) -> Iterator[npt.NDArray[np.generic]]:
    """Read whole slices of the first frame as they are stored, some MB at a time.

    Args:
        data: the file.
        header: of it.

    Yields:
        (z, y, x); of a damaged file the slices before the damage.
    """
    x, y, z = header.shape_xyz
    slice_bytes = x * y * header.dtype.itemsize
    wanted = max(1, _STEP_BYTES // slice_bytes) * slice_bytes
    left = z * slice_bytes
    skip, held = header.skip_bytes, bytearray()
    for part in _iterate_payload(data, header):
        held += part[skip:]
        skip = max(0, skip - len(part))
        while left and len(held) >= min(wanted, left):
            size = min(wanted, left)
            yield np.frombuffer(bytes(held[:size]), header.dtype).reshape(-1, y, x)
            del held[:size]
            left -= size
        if not left:
            return


def _iterate_payload(data: bytes, header: VolumeHeader) -> Iterator[bytes]:
    if header.window_bits:
        return iterate_inflated(memoryview(data)[header.payload_offset :], header.window_bits)
    starts = range(header.payload_offset, len(data), _STEP_BYTES)
    return (data[start : start + _STEP_BYTES] for start in starts)
