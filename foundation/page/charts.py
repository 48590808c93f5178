"""Charts as SVG with axes, units and values under the pointer, drawn without a plotting library: a page stays small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from crossdim.foundation.page.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    build_axis,
    draw_frame,
    open_drawing,
)

#: Told apart by people with any colour vision, on light and dark ground (Okabe and Ito, darkened for white).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#56a0c8", "#8a5a44", "#777777")
#: As the pages colour warnings.
WARN = "var(--warn)"
_Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A drawing as SVG, and the name and colour of each series."""

    svg: str
    legend: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A value that lines are compared with: drawn dashed over the whole width, with a band of its spread.

    Attributes:
        name: such as ``knn, untrained``.
        value: on the vertical axis.
        spread: half the height of the band; 0 for none.
        warns: whether it has the colour of warnings.
    """

    name: str
    value: float
    spread: float = 0.0
    warns: bool = False

    @property
    def colour(self) -> str:
        """Of its line and band."""
        return WARN if self.warns else COLOURS[-1]


def draw_lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    *,
    levels: Sequence[Level] = (),
    spreads: Mapping[str, Sequence[float]] | None = None,
) -> Chart:
    """Draw lines, each in its own colour.

    Args:
        series: by name, x and y of each point; a point that is not finite interrupts nothing, it is left out.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.
        marks: vertical lines: x and what happened there, shown under the pointer.
        levels: horizontal lines.
        spreads: by name of a series, for each of its points half the height of a bar; the points are drawn, too, and the
            horizontal axis begins at 0.

    Returns:
        The chart.
    """
    kept = {name: _keep_finite(xs, ys) for name, (xs, ys) in series.items()}
    bars = {name: np.asarray(values, np.float64) for name, values in (spreads or {}).items()}
    reached = [level.value + sign * level.spread for level in levels for sign in (-1, 1)]
    reached += [value for name, bar in bars.items() for sign in (-1, 1) for value in kept[name][1] + sign * bar]
    x = build_axis(x_label, np.concatenate([xs for xs, _ in kept.values()] or [np.zeros(0)]), from_zero=bool(bars))
    x = x.widen() if bars else x  # points at the border would be cut
    y = build_axis(y_label, np.concatenate([*(ys for _, ys in kept.values()), np.array(reached)]))
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts, legend, lines = [_draw_level(level, y) for level in levels], [], []
    parts += _draw_marks(x, marks)
    for number, (name, (xs, ys)) in enumerate(kept.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = np.stack([x.place(xs, LEFT, right), y.place(ys, bottom, TOP)], axis=1)
        text = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{text}"/>')
        if len(points) == 1 and name not in bars:  # a line of one point is invisible
            parts.append(_draw_point(float(points[0, 0]), float(points[0, 1]), f"{ys[0]:.4g}", colour))
        parts += [_draw_bar(a, y, value, bar, colour) for (a, _), value, bar in zip(points, ys, bars.get(name, ()), strict=False)]
        legend.append((name, colour))
        lines.append({"name": name, "x": [float(f"{v:.6g}") for v in xs], "y": [float(f"{v:.5g}") for v in ys]})
    for level in levels:
        legend.append((f"{level.name} (dashed)", level.colour))
        lines.append({"name": level.name, "x": [x.low], "y": [float(f"{level.value:.5g}")]})
    area = {"left": LEFT, "right": right, "low": x.low, "high": x.high, "x": x_label, "lines": lines}
    return Chart(svg=draw_frame(x, y, "".join(parts), f"{y_label} over {x_label}", area), legend=legend)


def _draw_level(level: Level, y: Axis) -> str:
    """A dashed line over the whole width, over a band of its spread."""
    colour, bottom, right = level.colour, HEIGHT - BOTTOM, WIDTH - RIGHT
    low, at, high = y.place([level.value - level.spread, level.value, level.value + level.spread], bottom, TOP)
    title = f"<title>{escape(level.name)}: {level.value:.4g}{f' ± {level.spread:.3g}' if level.spread else ''}</title>"
    place = f'x="{LEFT}" y="{high:.1f}" width="{right - LEFT}" height="{low - high:.1f}"'
    band = f'<rect class="band" {place} fill="{colour}">{title}</rect>' if level.spread else ""
    return f'{band}<path class="level" stroke="{colour}" d="M{LEFT} {at:.1f}H{right}">{title}</path>'


def _draw_bar(at: float, y: Axis, value: float, spread: float, colour: str) -> str:
    """A point with a bar of its spread."""
    low, middle, high = y.place([value - spread, value, value + spread], HEIGHT - BOTTOM, TOP)
    point = _draw_point(at, middle, f"{value:.4g} ± {spread:.3g}", colour)
    return f'<path stroke="{colour}" stroke-width="1.2" d="M{at:.1f} {low:.1f}V{high:.1f}"/>{point}'


def _draw_point(at: float, height: float, title: str, colour: str) -> str:
    return f'<circle cx="{at:.1f}" cy="{height:.1f}" r="3" fill="{colour}"><title>{title}</title></circle>'


def _draw_marks(x: Axis, marks: Sequence[tuple[float, str]]) -> list[str]:
    """Vertical lines, each with a text under the pointer; those beside the axis are left out."""
    return [
        f'<path class="mark" d="M{float(x.place(at, LEFT, WIDTH - RIGHT)):.1f} {TOP}V{HEIGHT - BOTTOM}">'
        f"<title>{escape(said)}</title></path>"
        for at, said in marks
        if x.low <= at <= x.high
    ]


def _keep_finite(xs: Sequence[float], ys: Sequence[float]) -> tuple[_Numbers, _Numbers]:
    x, y = np.asarray(xs, np.float64), np.asarray(ys, np.float64)
    good = np.isfinite(x) & np.isfinite(y)
    return x[good], y[good]


def draw_histogram(
    edges: npt.ArrayLike,
    counts: Mapping[str, npt.ArrayLike],
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
) -> Chart:
    """Draw histograms over the same bins as steps.

    Args:
        edges: (N + 1,) of the bins.
        counts: (N,) by name.
        x_label: what is counted, with its unit.
        y_label: what the heights are.
        marks: vertical lines: x and what it is, shown under the pointer.

    Returns:
        The chart.
    """
    borders = np.asarray(edges, np.float64)
    x = Axis(label=x_label, low=float(borders[0]), high=float(borders[-1]))
    y = build_axis(y_label, np.concatenate([np.asarray(one, np.float64) for one in counts.values()]), from_zero=True)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts, legend = [], []
    for number, (name, heights) in enumerate(counts.items()):
        colour = COLOURS[number % len(COLOURS)]
        xs = x.place(borders, LEFT, right)
        ys = y.place(np.asarray(heights, np.float64), bottom, TOP)
        steps = "".join(f"V{top:.1f}H{end:.1f}" for top, end in zip(ys, xs[1:], strict=True))
        parts.append(
            f'<path fill="{colour}" fill-opacity=".25" stroke="{colour}" d="M{xs[0]:.1f} {bottom}{steps}V{bottom}Z">'
            f"<title>{escape(name)}</title></path>"
        )
        legend.append((name, colour))
    parts += _draw_marks(x, marks)
    return Chart(svg=draw_frame(x, y, "".join(parts), f"{y_label} of {x_label}"), legend=legend)


def draw_scatter(
    groups: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[str]]], x_label: str, y_label: str
) -> Chart:
    """Draw points, each with a text under the pointer.

    Args:
        groups: by name: x, y and the text of each point.
        x_label: what the horizontal axis shows, with its unit.
        y_label: what the vertical axis shows, with its unit.

    Returns:
        The chart.
    """
    x = build_axis(x_label, [v for xs, _, _ in groups.values() for v in xs], from_zero=True).widen()
    y = build_axis(y_label, [v for _, ys, _ in groups.values() for v in ys], from_zero=True).widen()
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts, legend = [], []
    for number, (name, (xs, ys, texts)) in enumerate(groups.items()):
        colour = COLOURS[number % len(COLOURS)]
        legend.append((name, colour))
        for a, b, text in zip(x.place(xs, LEFT, right), y.place(ys, bottom, TOP), texts, strict=True):
            place = f'cx="{a:.1f}" cy="{b:.1f}" r="4"'
            parts.append(f'<circle {place} fill="{colour}" fill-opacity=".6"><title>{escape(text)}</title></circle>')
    return Chart(svg=draw_frame(x, y, "".join(parts), f"{y_label} over {x_label}"), legend=legend)


def draw_bars(rows: Mapping[str, Mapping[str, int]], parts: Sequence[str]) -> Chart:
    """Draw horizontal bars, each divided into parts.

    Args:
        rows: by name, the number of each part.
        parts: names, in the order in which they are drawn.

    Returns:
        The chart, as high as it has rows.
    """
    most = max((sum(row.values()) for row in rows.values()), default=1) or 1
    name_width = min(300, 16 + 10 * max((len(name) for name in rows), default=0))
    drawn, height = [], 24 * len(rows) + 6
    for number, (name, row) in enumerate(rows.items()):
        top, left = 24 * number + 4, float(name_width)
        drawn.append(f'<text x="{name_width - 8}" y="{top + 13}" text-anchor="end">{escape(_shorten(name))}</text>')
        for colour, part in zip(COLOURS, parts, strict=False):
            width = row.get(part, 0) / most * (WIDTH - name_width - 70)
            if width:
                title = escape(f"{name}, {part}: {row[part]:,}")
                place = f'x="{left:.1f}" y="{top}" width="{width:.1f}" height="18"'
                drawn.append(f'<rect {place} fill="{colour}"><title>{title}</title></rect>')
            left += width
        drawn.append(f'<text x="{left + 6:.1f}" y="{top + 13}">{sum(row.values()):,}</text>')
    about = ", ".join(f"{name} {sum(row.values())}" for name, row in rows.items())
    return Chart(svg=f"{open_drawing(height, about)}{''.join(drawn)}</svg>", legend=list(zip(parts, COLOURS, strict=False)))


def _shorten(name: str, length: int = 28) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
