"""Curves of a run: loss, terms, monitors, workers, and where its time went."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from crossdim.foundation.page.charts import Chart, draw_lines
from crossdim.training.run_dir.events import STARTS
from crossdim.training.run_dir.records import Record

#: Points of a line; of a longer run, means over equal stretches are drawn.
MAX_POINTS = 400
#: What names mean, for the page.
MEANINGS = {
    "loss": "the sum of the terms, which the optimizer lowers",
    "terms": "each term of the loss with its weight, by stream",
    "dimensions": "participation ratio of the features of a step: how many directions they vary in; 1 is a line",
    "evenness": "about 1 if the projections of a step are spread evenly over the sphere, 0 if all are one point",
}
_Floats = npt.NDArray[np.float64]


def draw_curves(metrics: Sequence[Record], events: Sequence[Record]) -> list[tuple[str, str, Chart]]:
    """Draw what a run logged.

    Args:
        metrics: its steps.
        events: marked over the curves.

    Returns:
        Title, explanation and chart of each; none for fewer than two steps.
    """
    if len(metrics) < 2:
        return []
    steps = np.array([record["step"] for record in metrics], np.float64)
    marks = [(float(event["step"]), describe_event(event)) for event in events if event["kind"] not in ("start", "end")]

    def chart(unit: str, series: dict[str, _Floats]) -> Chart:
        kept = {name: average_points(steps, values) for name, values in series.items() if np.isfinite(values).any()}
        return draw_lines({name: (x.tolist(), y.tolist()) for name, (x, y) in kept.items()}, "step", unit, marks)

    charts = [("Loss", MEANINGS["loss"], chart("loss", {"loss": _column(metrics, lambda record: record["loss"])}))]
    for title, meaning, unit, member, word in (
        ("Terms", MEANINGS["terms"], "weighted loss", "terms", ""),
        ("Effective dimensions", MEANINGS["dimensions"], "dimensions", "monitors", "dimensions"),
        ("Evenness", MEANINGS["evenness"], "evenness", "monitors", "evenness"),
    ):
        names = sorted({name for record in metrics for name in record[member] if word in name})
        if names:
            charts.append((title, meaning, chart(unit, {name: _column(metrics, _take(member, name)) for name in names})))
    charts += [
        ("Learning rate", "of the optimizer", chart("learning rate", {"lr": _column(metrics, lambda record: record["lr"])})),
        ("Gradient", "its norm before clipping", chart("norm", {"norm": _column(metrics, lambda record: record["grad_norm"])})),
        (
            "Time",
            "of a step: computing, waiting for data, and waiting for the slowest worker",
            chart("seconds", {name: _column(metrics, _take_time(member)) for name, member in _TIMES.items()}),
        ),
    ]
    workers = [event for event in events if event["kind"] in STARTS and event.get("workers")]
    if len({event["workers"] for event in workers}) > 1:
        x, y = _draw_steps(workers, float(steps[-1]))
        charts.append(("Workers", "of each start", draw_lines({"workers": (x, y)}, "step", "workers", marks)))
    return charts


_TIMES = {"whole step": "step_s", "waiting for data": "wait_s", "waiting for the slowest": "skew_s"}


def _take(member: str, name: str) -> Callable[[Record], float]:
    return lambda record: float(record[member].get(name, np.nan))


def _take_time(member: str) -> Callable[[Record], float]:
    return lambda record: float(record[member])


def _column(metrics: Sequence[Record], value: Callable[[Record], float]) -> _Floats:
    return np.array([value(record) for record in metrics], np.float64)


def average_points(x: _Floats, y: _Floats) -> tuple[_Floats, _Floats]:
    """Average a long line over equal stretches.

    Args:
        x: (N,).
        y: (N,), NaN where there is no value.

    Returns:
        At most ``MAX_POINTS`` points, without those that are NaN.
    """
    good = np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) <= MAX_POINTS:
        return x, y
    borders = np.linspace(0, len(x), MAX_POINTS + 1).astype(np.int64)[:-1]
    sizes = np.diff(np.append(borders, len(x)))
    return np.add.reduceat(x, borders) / sizes, np.add.reduceat(y, borders) / sizes


def _draw_steps(starts: Sequence[Record], last: float) -> tuple[list[float], list[float]]:
    """A line that is level between starts."""
    x, y = [], []
    for event, following in zip(starts, [*starts[1:], None], strict=True):
        x += [float(event["step"]), float(following["step"]) if following else last]
        y += [float(event["workers"])] * 2
    return x, y


def describe_event(event: Record) -> str:
    """An event in a line: step, kind, number of workers, and what it says."""
    text = " ".join(str(event.get("text", "")).split())
    return f"step {event['step']}: {event['kind']}" + (f", {text}" if text else "")


def count_mix(metrics: Sequence[Record]) -> list[tuple[str, int, float]]:
    """Count the samples of each kind that the steps held: name, number, share."""
    totals: dict[str, int] = {}
    for record in metrics:
        for name, number in record["counts"].items():
            totals[name] = totals.get(name, 0) + number
    whole = sum(totals.values()) or 1
    return [(name, number, number / whole) for name, number in sorted(totals.items())]
