"""NIfTI files, plain or gzipped, to volumes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.decoders.facts import Facts, Format
from pipelines.decoders.inflate import GZIP_MAGIC, inflate, inflate_head
from pipelines.decoders.nifti_header import HEADER_BYTES, NiftiHeader, parse_header
from pipelines.decoders.raw import RawItem, ReadRules, with_note
from storage_schema.errors import SampleError
from storage_schema.sample import Sample, Scaling

#: A header without sform and qform: nibabel's reading, x to the left as in Analyze.
_NO_ORIENTATION = "no orientation in the header, taken as LAS"


def header_bytes(data: bytes) -> bytes:
    """The first bytes of a NIfTI file, inflated if they are gzip; the content decides, not the name."""
    return inflate_head(data, HEADER_BYTES[2]) if data.startswith(GZIP_MAGIC) else data[: HEADER_BYTES[2]]


def facts(data: bytes, rules: ReadRules) -> Facts:
    """What the header of a NIfTI file says.

    Raises:
        SampleError: if the header is not sound.
    """
    header = parse_header(header_bytes(data), rules)
    x, y, z = header.shape_xyz
    sx, sy, sz = header.spacing_xyz_mm
    return Facts(format=Format.NIFTI, shape=(z, y, x), spacing_mm=(sz, sy, sx))


def decode(item: RawItem) -> Sample:
    """A NIfTI file as a volume.

    Returns:
        (1, D, H, W) float32 in physical units (slope and intercept applied); the file's x runs along W, y along H, z along D.

    Raises:
        SampleError: for damage, sizes that do not agree, an unusable affine, or a volume that shows nothing.
    """
    header = parse_header(header_bytes(item.data), item.rules)
    data = inflate(item.data, header.end) if item.data.startswith(GZIP_MAGIC) else item.data
    if len(data) < header.end:
        raise SampleError("truncated", f"the header promises {header.end:,} bytes; the file has {len(data):,}")
    volume_DHW, note = finite(_first_frame(data, header), item.rules)
    affine = header.affine_xyz[:, [2, 1, 0, 3]]
    key, origin, patient = item.origin()
    sx, sy, sz = header.spacing_xyz_mm
    sample = Sample(
        key=key,
        presentation=None,
        array=volume_DHW[None],
        modality=item.modality,
        scaling=range_of(volume_DHW),
        origin=origin,
        spacing_mm=(sz, sy, sx),
        affine=tuple(tuple(float(v) for v in row) for row in affine),
        label=item.label,
        patient=patient,
    )
    frames = f"first of {header.num_frames} frames" if header.num_frames > 1 else None
    return with_note(sample, frames, note, None if header.has_orientation else _NO_ORIENTATION)


def _first_frame(data: bytes, header: NiftiHeader) -> npt.NDArray[np.float32]:
    x, y, z = header.shape_xyz
    stored = np.frombuffer(data, header.dtype, count=x * y * z, offset=header.offset).reshape(z, y, x)
    if (header.slope, header.intercept) == (1.0, 0.0):
        return stored.astype(np.float32)
    return (stored.astype(np.float64) * header.slope + header.intercept).astype(np.float32)


def finite(volume: npt.NDArray[np.float32], rules: ReadRules) -> tuple[npt.NDArray[np.float32], str | None]:
    """The volume with its few NaN and infinite voxels at the lowest finite value, and a note that says so.

    Raises:
        SampleError: rule ``not_finite`` if they are more than a few.
    """
    good = np.isfinite(volume)
    bad = volume.size - int(np.count_nonzero(good))
    if not bad:
        return volume, None
    if bad > rules.max_not_finite * volume.size:
        raise SampleError(
            "not_finite",
            f"{bad:,} of {volume.size:,} voxels are NaN or infinite; at most {rules.max_not_finite:.0%} are replaced",
        )
    return np.where(good, volume, volume[good].min()), f"{bad} voxels were NaN or infinite, set to the minimum"


def range_of(volume: npt.NDArray[np.float32]) -> Scaling:
    """The range of a volume that must show something.

    Raises:
        SampleError: rule ``constant``.
    """
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        raise SampleError("constant", f"every voxel is {low:g}; there is nothing to see")
    return Scaling(low=low, high=high)
