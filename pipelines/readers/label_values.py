"""Recognise voxels that are labels: few whole numbers, or more of them in patches of one value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.label_kinds import Values
from crossdim.pipelines.readers.neighbours import Pairs, Texture, distinct
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.volume_file import ParseHeader, iterate_slices, parse_whole

#: So few different whole numbers may be labels of thin or scattered parts. Ours: above most atlases of one organ.
FEW_VALUES = 32
#: Share of such neighbours that are both no background and have one value: a count of photons is noise, and below 0.65 where
#: mostly 1 is counted. Ours.
MIN_AGREEING_INSIDE = 0.7
#: Share of neighbours, of which one is no background, that have one value, along each axis, where there are up to 256 values: 8
#: bits hold the labels of whole-body models, and gray images too. Ours: label maps of 3 mm have above 0.6, gray ones below 0.3.
MIN_AGREEING = 0.5
#: Fractions from 0 to 1 may leave that range where somebody interpolated them. Ours.
_SOFT_RANGE = (-0.5, 1.5)


def classify_values(parse: ParseHeader, data: bytes, rules: ReadRules) -> Values:
    """Tell labels from gray values, as they are stored. Reading stops as soon as they cannot be labels.

    Args:
        parse: parses the header of the file's format.
        data: the file.
        rules: size guards.

    Returns:
        The kind of values; ``OTHER`` for a file that is cut or damaged.

    Raises:
        SampleError: if the header is not valid.
    """
    header = parse_whole(parse, data, rules)
    pairs = Pairs(header.dtype)
    low, high, whole, gaps = np.inf, -np.inf, True, False
    num_voxels = 0
    for stored in iterate_slices(data, header):
        slices = _fill_gaps(stored)
        gaps = gaps or slices is not stored
        low, high = min(low, float(slices.min())), max(high, float(slices.max()))
        whole = whole and (slices.dtype.kind in "iu" or bool((slices == np.rint(slices)).all())) and pairs.meet(distinct(slices))
        if whole:
            pairs.add(slices)
        elif not (low >= 0 and high <= 1):
            return Values.OTHER
        num_voxels += slices.size
    if num_voxels < header.num_voxels:
        return Values.OTHER  # cut or damaged, which its decoder will say
    if low == high:
        return Values.CONSTANT
    if whole and _agree(pairs):
        return Values.GAPPED_LABELS if gaps else Values.LABELS
    return Values.FRACTIONS if low >= 0 and high <= 1 else Values.OTHER


def _agree(pairs: Pairs) -> bool:
    """Whether neighbours agree as those in label maps do, whatever their background is."""
    few = len(pairs.values) <= FEW_VALUES and all(pairs.inside(one) >= MIN_AGREEING_INSIDE for one in pairs.backgrounds())
    return few or all(pairs.lowest(one) >= MIN_AGREEING for one in pairs.backgrounds())


def shows_gray(parse: ParseHeader, data: bytes, rules: ReadRules) -> bool:
    """Whether a volume that is named as a label map is an image: neighbours mostly differ, and values are no fractions.

    Args:
        parse: parses the header of the file's format.
        data: the file.
        rules: size guards.

    Returns:
        False also where the file is cut, or shows too little to tell.

    Raises:
        SampleError: if the header is not sound.
    """
    header = parse_whole(parse, data, rules)
    texture, low, high, num_voxels = Texture(), np.inf, -np.inf, 0
    for stored in iterate_slices(data, header):
        slices = _fill_gaps(stored)
        low, high = min(low, float(slices.min())), max(high, float(slices.max()))
        texture.add(slices)
        num_voxels += slices.size
    ends = sorted(value * header.slope + header.intercept for value in (low, high))
    soft = _SOFT_RANGE[0] <= ends[0] and ends[1] <= _SOFT_RANGE[1]
    return num_voxels == header.num_voxels and not soft and texture.is_gray()


def _fill_gaps(stored: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The values, with 0 for those that are no finite numbers."""
    if stored.dtype.kind != "f":
        return stored
    finite = np.isfinite(stored)
    return stored if finite.all() else np.where(finite, stored, 0)
