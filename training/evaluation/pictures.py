"""Arrays as PNG and curves as SVG inside an HTML page, without a plotting library."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]
#: Shortest side of a picture in the page, pixels; small arrays are magnified without smoothing.
SHOWN_SIDE = 112
COLOURS = ("#3b6ea8", "#c8553d", "#4f8a5b", "#8c6bb1", "#b8860b", "#4a9a9a", "#a0527c", "#707070")


def encode_png(image_HW: Floats) -> str:
    """A unit-range image as a data URI."""
    factor = max(1, round(SHOWN_SIDE / min(image_HW.shape)))
    grey = (np.clip(image_HW, 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.kron(grey, np.ones((factor, factor), np.uint8))).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def stretch_to_unit(image: Floats) -> Floats:
    """Scale an array of any range to unit range, for display."""
    low, high = float(image.min()), float(image.max())
    return ((image - low) / (high - low if high > low else 1)).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Lines as SVG, and the name and colour of each."""

    svg: str
    legend: list[tuple[str, str]]


def draw_curve(series: Mapping[str, Sequence[float]], width: int = 640, height: int = 220) -> Curve:
    """Draw lines over the steps of a run, each in its own colour.

    Args:
        series: values by name.
        width: of the drawing, pixels.
        height: of the drawing, pixels.

    Returns:
        The SVG and, for the legend, the colour of each line.
    """
    values = np.array([v for line in series.values() for v in line])
    low, high = float(values.min()), float(values.max())
    span = high - low if high > low else 1.0
    lines, legend = [], []
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        x = np.linspace(40, width - 10, len(line))
        y = height - 20 - (np.asarray(line) - low) / span * (height - 40)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>')
        legend.append((name, colour))
    axis = f'<text x="2" y="22">{high:.3g}</text><text x="2" y="{height - 18}">{low:.3g}</text>'
    look = 'role="img" font-size="11" font-family="sans-serif" fill="currentColor"'
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" {look}>'
    return Curve(svg=f"{head}{axis}{''.join(lines)}</svg>", legend=legend)
