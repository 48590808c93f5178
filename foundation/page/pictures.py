"""Arrays as pictures inside an HTML page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
#: How the data URI of a PNG file begins.
PNG_URI = "data:image/png;base64,"
#: Shortest side of a picture in the page, pixels; small arrays are magnified without smoothing.
SHOWN_SIDE = 112
#: Longest side of a picture in the page, pixels; larger arrays are thinned out.
MAX_SIDE = 448


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture and its caption."""

    caption: str
    uri: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Pictures that belong together, in rows with a title each."""

    title: str
    rows: list[tuple[str, list[Picture]]]


def encode_png(image: npt.NDArray[np.floating]) -> str:
    """A unit-range image, (H, W) in grey or (H, W, 3) in colour, as a data URI."""
    short, long = min(image.shape[:2]), max(image.shape[:2])
    factor, step = max(1, min(round(SHOWN_SIDE / short), MAX_SIDE // long)), -(-long // MAX_SIDE)
    pixels = (np.clip(image[::step, ::step], 0, 1) * 255).astype(np.uint8)
    if step == 1:
        pixels = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    return encode_pixels(pixels)


def encode_pixels(pixels: npt.NDArray[np.uint8]) -> str:
    """Pixels, (H, W) in grey or (H, W, 3) in colour, as a data URI of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return PNG_URI + base64.b64encode(buffer.getvalue()).decode()


def shrink(image: Floats, longest: int) -> Floats:
    """Shrink an image, smoothed, until its longest side is at most so many pixels; a smaller one is left as it is.

    Args:
        image: (H, W).
        longest: side, pixels.

    Returns:
        (H, W).
    """
    factor = longest / max(image.shape)
    if factor >= 1:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))


def stretch_to_unit(image: Floats) -> Floats:
    """Scale an array of any range to unit range, for display."""
    low, high = float(image.min()), float(image.max())
    return ((image - low) / (high - low if high > low else 1)).astype(np.float32)
