"""Pixels outside of the field of view: PixelPaddingValue and PixelPaddingRangeLimit (PS3.3 C.7.5.1.1.2).

They are compared with stored values, before the modality LUT, and have no grey value of their own: an image shows them black, a
volume stores air there, and they are left out of minima, maxima and percentiles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders.base import get_decoder

from crossdim.pipelines.readers.lookup_table import is_little_endian, is_signed, to_stored
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array


def find_padding(dataset: Any, stored: Array) -> npt.NDArray[np.bool_] | None:
    """Find the pixels outside of the field of view.

    Args:
        dataset: header and pixels of one file.
        stored: (H, W) as stored, bits beyond BitsStored removed.

    Returns:
        (H, W) bool; None if there are no such pixels.

    Raises:
        SampleError: rule ``padding`` if the padding value is not a number.
    """
    ends = _padding_range(dataset)
    if ends is None:
        return None
    low, high = ends
    cells = stored if _fits(dataset, low) and _fits(dataset, high) else _restore_allocated(dataset, stored)
    mask = (cells >= low) & (cells <= high)
    return mask if mask.any() else None


def _padding_range(dataset: Any) -> tuple[int, int] | None:
    value, limit = _number(dataset, "PixelPaddingValue"), _number(dataset, "PixelPaddingRangeLimit")
    if value is None:
        return None
    low, high = sorted((value, value if limit is None else limit))
    return low, high


def _number(dataset: Any, keyword: str) -> int | None:
    try:
        value = dataset.get(keyword)
        if isinstance(value, bytes):  # an unknown value representation leaves bytes
            value = int.from_bytes(value[:2], "little" if is_little_endian(dataset) else "big") if value else None
        number = None if value is None or value == "" else int(value)
    except (TypeError, ValueError) as error:
        raise SampleError("padding", f"{keyword} is not one whole number; correct the header") from error
    return None if number is None else to_stored(number, signed=is_signed(dataset))


def _fits(dataset: Any, value: int) -> bool:
    bits = int(dataset.BitsStored)
    return -(1 << bits - 1) <= value < 1 << bits - 1 if is_signed(dataset) else 0 <= value < 1 << bits


def _restore_allocated(dataset: Any, stored: Array) -> Array:
    """Pixels with all allocated bits: a padding value that BitsStored cannot hold is written with the bits above."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated or int(dataset.BitsAllocated) == int(dataset.BitsStored):
        return stored
    options: Any = {"raw": True, "correct_unused_bits": False}
    cells, _ = get_decoder(syntax).as_array(dataset, **options)
    return cells
