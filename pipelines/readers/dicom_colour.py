"""Convert colour DICOM images to RGB, in the form of colour PNG files."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossdim.pipelines.readers.lookup_table import LookupTable, parse_lookup_table
from crossdim.pipelines.readers.raster import DEEP_COLOUR_NOTE
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Array


def convert_to_rgb(dataset: Any, photometric: str, pixels: Array) -> tuple[Array, tuple[str | None, ...]]:
    """Convert pixels in RGB, or numbers of a palette, to RGB of 8 bits.

    Args:
        dataset: header of the file.
        photometric: its PhotometricInterpretation.
        pixels: (H, W, 3) RGB, or (H, W) numbers of colours of a palette.

    Returns:
        (3, H, W) uint8, and notes.

    Raises:
        SampleError: rule ``palette_colour`` for a palette that is missing or damaged, ``colour`` for other depths than 8 bits.
    """
    if photometric != "PALETTE COLOR":
        if pixels.dtype != np.uint8:
            raise SampleError("colour", f"colour of {8 * pixels.dtype.itemsize} bits a sample is not read; 8 bits are")
        return _channels_first(pixels), ()
    colours = np.stack([_parse_channel(dataset, name)(pixels) for name in ("Red", "Green", "Blue")], axis=-1)
    if colours.dtype == np.uint8:
        return _channels_first(colours), ()
    return _channels_first((colours >> 8).astype(np.uint8)), (DEEP_COLOUR_NOTE,)


def _parse_channel(dataset: Any, name: str) -> LookupTable:
    if f"Segmented{name}PaletteColorLookupTableData" in dataset:
        raise SampleError("palette_colour", "a segmented palette is not read; expand it, or save the image as RGB")
    descriptor, data = (dataset.get(f"{name}PaletteColorLookupTable{part}") for part in ("Descriptor", "Data"))
    return parse_lookup_table(dataset, descriptor, data, rule="palette_colour")


def _channels_first(pixels_HWC: Array) -> Array:
    return np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
