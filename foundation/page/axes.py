"""Axes of charts: ranges, round ticks, and the frame with labels around a drawing, as SVG."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 640, 240
#: Pixels around the area that is drawn into.
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 40
_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """One axis: what it shows, with the unit, and its range.

    Attributes:
        label: such as ``step`` or ``pixel spacing, mm``.
        low: value at its beginning.
        high: value at its end.
    """

    label: str
    low: float
    high: float

    def widen(self) -> Axis:
        """The axis with a margin behind its last value, so that a point there is drawn whole."""
        return Axis(label=self.label, low=self.low, high=self.high + 0.04 * (self.high - self.low))

    def place(self, values: npt.ArrayLike, begin: float, end: float) -> _Numbers:
        """Put values on the axis.

        Args:
            values: in the axis's unit.
            begin: pixel of ``low``.
            end: pixel of ``high``.

        Returns:
            Pixels.
        """
        share = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return begin + share * (end - begin)


def find_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Find round values inside a range: multiples of 1, 2 or 5 times a power of ten.

    Args:
        low: end of the range.
        high: other end, above ``low``.
        count: about how many are wanted.

    Returns:
        At least one value.
    """
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)] or [low]


def build_axis(label: str, values: npt.ArrayLike, *, from_zero: bool = False) -> Axis:
    """Build an axis that holds all values.

    Args:
        label: what it shows.
        values: finite ones count; there may be none.
        from_zero: whether it begins at 0.

    Returns:
        The axis, with a margin where all values are equal.
    """
    numbers = np.asarray(values, np.float64)
    numbers = numbers[np.isfinite(numbers)]
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    if high <= low:
        low, high = (0.0, high or 1.0) if from_zero and high >= 0 else (low - abs(low) * 0.1 - 1e-6, low + abs(low) * 0.1 + 1e-6)
    return Axis(label=label, low=low, high=high)


def _format_number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 and value == round(value) else f"{value:.4g}"


def draw_frame(x: Axis, y: Axis, inside: str, about: str, data: object = None) -> str:
    """Draw axes, ticks and labels around what is inside.

    Args:
        x: horizontal axis.
        y: vertical axis.
        inside: SVG.
        about: what it shows, for people who do not see it.
        data: JSON values by which the page shows values under the pointer; None for none.

    Returns:
        The whole drawing.
    """
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for tick in find_ticks(y.low, y.high, 4):
        at = float(y.place(tick, bottom, TOP))
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_format_number(tick)}</text>')
    for tick in find_ticks(x.low, x.high, 6):
        at = float(x.place(tick, LEFT, right))
        anchor = "end" if at > right - 12 else "middle"
        parts.append(f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="{anchor}">{_format_number(tick)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text transform="translate(12 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    kept = f" data-lines='{escape(json.dumps(data), quote=True)}'" if data else ""
    return f"{open_drawing(HEIGHT, about, kept)}{''.join(parts)}{inside}</svg>"


def open_drawing(height: int, about: str, attributes: str = "") -> str:
    """Open a drawing, which the caller closes.

    Args:
        height: pixels.
        about: what it shows, for people who do not see it.
        attributes: further ones, escaped.

    Returns:
        The tag of the SVG.
    """
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
    return f'<svg class="chart" {size} role="img" tabindex="0" aria-label="{escape(about)}"{attributes}>'
