"""Voxels that are labels: few whole numbers, or more of them in patches of one value."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.inflate import GZIP_MAGIC
from crossdim.pipelines.readers.label_kinds import Values
from crossdim.pipelines.readers.nifti import header_bytes
from crossdim.pipelines.readers.nifti_header import NiftiHeader, parse_header
from crossdim.pipelines.readers.raw import ReadRules

#: So few different whole numbers may be labels of thin or scattered parts. Ours: above most atlases of one organ.
FEW_VALUES = 32
#: Share of such neighbours that are both no background and have one value: a count of photons is noise, and below 0.65 where
#: mostly 1 is counted. Ours.
MIN_AGREEING_INSIDE = 0.7
#: So many may be labels, if neighbours mostly agree. Ours: 8 bits hold the labels of whole-body models, and gray images too.
MANY_VALUES = 256
#: Share of neighbours, of which one is no background, that have one value, along each axis. Ours: label maps of 3 mm have
#: above 0.6, gray images of 8 bits below 0.3.
MIN_AGREEING = 0.5
_STEP_BYTES = 1 << 20
_TABLE_VALUES = 1 << 16


def values_of(data: bytes, rules: ReadRules) -> Values:
    """Tell labels from gray values, as they are stored. Reading stops as soon as they cannot be labels.

    Args:
        data: a NIfTI file.
        rules: size guards.

    Raises:
        SampleError: if the header is not sound.
    """
    header = parse_header(header_bytes(data), rules)
    seen: npt.NDArray[np.generic] = np.empty(0, header.dtype)
    low, high, whole, gaps = np.inf, -np.inf, True, False
    agreeing = _Agreement()
    num_voxels = 0
    for stored in _slices(data, header):
        slices = np.where(np.isfinite(stored), stored, 0) if stored.dtype.kind == "f" else stored
        gaps = gaps or not np.isfinite(stored).all()
        low, high = min(low, float(slices.min())), max(high, float(slices.max()))
        whole = whole and (slices.dtype.kind in "iu" or bool((slices == np.rint(slices)).all()))
        if whole and len(seen) <= MANY_VALUES:
            seen = np.union1d(seen, _distinct(slices))
        if (not whole or len(seen) > MANY_VALUES) and not (low >= 0 and high <= 1):
            return Values.OTHER
        agreeing.add(slices)
        num_voxels += slices.size
    if num_voxels < int(np.prod(header.shape_xyz, dtype=object)):
        return Values.OTHER  # cut or damaged, which its decoder will say
    if low == high:
        return Values.CONSTANT
    few = len(seen) <= FEW_VALUES and agreeing.inside() >= MIN_AGREEING_INSIDE
    if whole and (few or agreeing.lowest() >= MIN_AGREEING):
        return Values.GAPPED_LABELS if gaps else Values.LABELS
    return Values.FRACTIONS if low >= 0 and high <= 1 else Values.OTHER


def _distinct(slices: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The different values, without sorting all of them where they span little."""
    if slices.dtype.kind not in "iu" or slices.dtype.itemsize == 8:
        return np.unique(slices)
    low = slices.min()
    span = int(slices.max()) - int(low) + 1
    if span > _TABLE_VALUES:
        return np.unique(slices)
    met = np.zeros(span, bool)
    met[slices.astype(np.int64).ravel() - int(low)] = True
    return (np.flatnonzero(met) + int(low)).astype(slices.dtype)


def _slices(data: bytes, header: NiftiHeader) -> Iterator[npt.NDArray[np.generic]]:
    """Whole slices (z, y, x), some MB at a time; those before the damage of a damaged file."""
    x, y, z = header.shape_xyz
    slice_bytes = x * y * header.dtype.itemsize
    wanted = max(1, _STEP_BYTES // slice_bytes) * slice_bytes
    left = z * slice_bytes
    held = bytearray()
    for part in _content(data, header.offset):
        held += part
        while left and len(held) >= min(wanted, left):
            size = min(wanted, left)
            yield np.frombuffer(bytes(held[:size]), header.dtype).reshape(-1, y, x)
            del held[:size]
            left -= size
        if not left:
            return


def _content(data: bytes, skip: int) -> Iterator[bytes]:
    """What the file holds behind its first ``skip`` bytes, inflated if it is gzip."""
    if not data.startswith(GZIP_MAGIC):
        yield from (data[start : start + _STEP_BYTES] for start in range(skip, len(data), _STEP_BYTES))
        return
    start = 0
    try:
        while data.startswith(GZIP_MAGIC, start):
            member = zlib.decompressobj(31)
            while not member.eof:
                given = member.unconsumed_tail or data[start : start + _STEP_BYTES]
                start += 0 if member.unconsumed_tail else len(given)
                part = member.decompress(given, _STEP_BYTES)
                if not given and not part:
                    return
                yield part[skip:]
                skip = max(0, skip - len(part))
            start -= len(member.unused_data)
    except zlib.error:
        return


class _Agreement:
    """How often neighbours, of which one at least is not zero, have one value; counted along each axis."""

    def __init__(self) -> None:
        self._equal = [0, 0, 0]
        self._pairs = [0, 0, 0]
        self._inside = 0
        self._last: npt.NDArray[np.generic] | None = None

    def add(self, slices: npt.NDArray[np.generic]) -> None:
        """Count the next slices (z, y, x)."""
        deep = slices if self._last is None else np.concatenate([self._last, slices])
        for axis, (one, other) in enumerate(
            [(deep[1:], deep[:-1]), (slices[:, 1:], slices[:, :-1]), (slices[:, :, 1:], slices[:, :, :-1])]
        ):
            shown = (one != 0) | (other != 0)
            self._pairs[axis] += int(np.count_nonzero(shown))
            self._equal[axis] += int(np.count_nonzero((one == other) & shown))
            self._inside += int(np.count_nonzero((one != 0) & (other != 0)))
        self._last = slices[-1:]

    def inside(self) -> float:
        """The share of neighbours of which neither is zero; of a mask, however thin, all of them."""
        return sum(self._equal) / self._inside if self._inside else 1.0

    def lowest(self) -> float:
        """The share along the axis where it is lowest."""
        return min((equal / pairs for equal, pairs in zip(self._equal, self._pairs, strict=True) if pairs), default=1.0)
