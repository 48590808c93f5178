"""Parts of text headers, as MetaImage and NRRD have them: numbers, data types and directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from crossdim.pipelines.readers.nifti_affine import check_axes
from crossdim.storage_schema.errors import SampleError

Number = TypeVar("Number", int, float)
#: Largest text header that is read. Those of segmentations with hundreds of named segments have some 100 KB; ours.
MAX_HEADER_BYTES = 1 << 22
#: Axes of a picture in space, and one of time.
MAX_AXES = 4
#: A text header may leave the position in space open; ITK then takes the axes for (left, posterior, superior).
NO_ORIENTATION_NOTE = "no orientation in the header, taken as LPS"


def parse_numbers(text: str, field: str, kind: type[Number]) -> tuple[Number, ...]:
    """Parse numbers.

    Args:
        text: as the header has it.
        field: which states it, for the error.
        kind: ``int``, or ``float`` for any number, finite or not.

    Returns:
        As many as there are.

    Raises:
        SampleError: rule ``header_value`` for other text.
    """
    try:
        return tuple(kind(word) for word in text.split())
    except ValueError:
        expected = "whole numbers" if kind is int else "numbers"
        raise SampleError("header_value", f"the header's field {field!r} does not hold {expected}") from None


def expect_count(values: Sequence[object], count: int, field: str) -> None:
    """Check how many values a field has.

    Args:
        values: of the field.
        count: that are expected.
        field: which states them, for the error.

    Raises:
        SampleError: rule ``header_value`` for another number of values.
    """
    if len(values) != count:
        raise SampleError("header_value", f"the header's field {field!r} has {len(values)} values; {count} are expected")


def check_sizes(sizes: Sequence[int]) -> None:
    """Check the sides of a picture.

    Raises:
        SampleError: rule ``dimensions`` if they are not 2 to 4, each of one voxel at least.
    """
    if not 2 <= len(sizes) <= MAX_AXES:
        raise SampleError("dimensions", f"the header says {len(sizes)} dimensions; 2 to {MAX_AXES} are read")
    if min(sizes) < 1:
        raise SampleError("dimensions", f"the header says shape {list(sizes)}; every side needs at least one voxel")


def build_affine(
    directions_mm: npt.NDArray[np.float64], origin_mm: npt.NDArray[np.float64], signs: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """Build an affine to (right, anterior, superior).

    Args:
        directions_mm: (3, 3), a row for each axis of the file: one voxel's step in space.
        origin_mm: (3,), the centre of the first voxel.
        signs: by which the axes of that space become right, anterior and superior.

    Returns:
        (4, 4): voxel (x, y, z, 1) to mm.

    Raises:
        SampleError: rule ``singular_affine`` or ``sheared_affine``.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions_mm.T * np.asarray(signs)[:, None]
    affine[:3, 3] = origin_mm * signs
    check_axes(affine)
    return affine
