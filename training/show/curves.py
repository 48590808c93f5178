"""Curves of a run: loss, terms, monitors, workers, where its time went, and probes of its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from crossdim.foundation.counts import count
from crossdim.foundation.page.charts import Chart, Level, draw_lines
from crossdim.training.run_dir.events import STARTS
from crossdim.training.run_dir.records import Record
from crossdim.training.show.evaluation import CheckpointResult, group_by_probe

#: Points of a line; of a longer run, means over equal stretches are drawn.
MAX_POINTS = 400
#: What names mean, for the page.
MEANINGS = {
    "loss": "the sum of the terms, which the optimizer lowers",
    "terms": "each term of the loss with its weight, by stream",
    "accuracy": "share of the samples of a step, of those with one of the classes, whose class is predicted",
    "labelled": "share of the samples of a step that have one of the classes",
    "rank_me": "how many directions the features of a fixed batch vary in, by deviations; at most one less than it has samples",
    "dimensions": "participation ratio of the same: by variances, so that one strong direction hides the others; 1 is a line",
    "alignment": "squared distance of two views of a sample on the unit sphere: 0 if they have the same features",
    "uniformity": "how evenly features of a fixed batch lie on the unit sphere: 0 if all are one point, about -4 if evenly",
    "evenness": "about 1 if the projections of a step are spread evenly over the sphere, 0 if all are one point",
}
#: Monitors that are shown first: they tell whether features collapse.
COLLAPSE = ("rank_me", "dimensions")
#: Titles of monitors that are no plain word of their name, by the name without its stream and number.
TITLES = {
    "rank_me": "RankMe",
    "dimensions": "Effective dimensions",
    "psnr_masked": "PSNR of hidden patches, dB",
    "psnr_unmasked": "PSNR with nothing hidden, dB",
}
#: Units of those whose unit is not their name.
UNITS = {"rank_me": "dimensions", "alignment": "squared distance", "uniformity": "logarithm"}
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
        points = {name: (x.tolist(), y.tolist()) for name, (x, y) in kept.items()}
        return draw_lines(points, "step", unit, marks)

    charts = [("Loss", MEANINGS["loss"], chart("loss", {"loss": _column(metrics, lambda record: record["loss"])}))]
    if terms := sorted({name for record in metrics for name in record["terms"]}):
        series = {name: _column(metrics, _take("terms", name)) for name in terms}
        charts.append(("Terms", MEANINGS["terms"], chart("weighted loss", series)))
    for family, names in group_monitors(metrics).items():
        short = dict(zip(map(name_monitor, names), names, strict=True))
        shown = short if len(short) == len(names) else dict(zip(names, names, strict=True))
        series = {name: _column(metrics, _take("monitors", logged)) for name, logged in shown.items()}
        title = TITLES.get(family, family.replace("_", " ").capitalize())
        charts.append(
            (title, MEANINGS.get(family, "logged by the method"), chart(UNITS.get(family, family.replace("_", " ")), series))
        )
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


def group_monitors(metrics: Sequence[Record]) -> dict[str, list[str]]:
    """Group the monitors that were logged by what they measure, whatever a method logs.

    Args:
        metrics: steps of a run.

    Returns:
        Names such as ``pseudo3d/evenness0`` by ``evenness``, and ``fixed/pseudo3d/z0.rank_me`` by ``rank_me``; a name without a
        finite value is left out.
    """
    named = {name for record in metrics for name, value in record["monitors"].items() if np.isfinite(value)}
    groups: dict[str, list[str]] = {}
    for name in sorted(named):
        groups.setdefault(re.split(r"[/.]", name)[-1].rstrip("0123456789"), []).append(name)
    return dict(sorted(groups.items(), key=lambda group: (group[0] not in COLLAPSE, group[0])))


def name_monitor(name: str) -> str:
    """Name a monitor in a legend: its stream, and which features it measures.

    Args:
        name: as it was logged, such as ``fixed/superpatch/z2.rank_me`` or ``pseudo3d/evenness0``.

    Returns:
        Such as ``superpatch, projection 2``.
    """
    *stream, last = name.removeprefix("fixed/").split("/")
    features, _, measure = last.rpartition(".")
    number = re.search(r"\d+$", measure)
    if not features and number:
        features = f"z{number.group()}"
    return ", ".join(filter(None, [*stream, re.sub(r"^z(\d*)$", r"projection \1", features).strip()])) or name


def draw_probe_curves(results: Sequence[CheckpointResult]) -> list[tuple[str, str, Chart]]:
    """Draw the probes of checkpoints over the steps, with the untrained networks as dashed lines and their bands.

    Args:
        results: of all datasets, by step.

    Returns:
        Title, explanation and chart of each dataset and probe.
    """
    charts = []
    for (dataset, probe), several in group_by_probe(results).items():
        steps, values = [float(one.step) for one in several], [one.result.trained for one in several]
        first = several[0].result
        chart = draw_lines(
            {"this encoder": (steps, values)},
            "step",
            "balanced accuracy",
            levels=[Level(name="untrained", value=first.untrained, spread=first.untrained_spread)],
            spreads={"this encoder": [one.result.trained_spread for one in several]},
        )
        about = f"{first.presentation}, {count(first.num_samples, 'sample')} of {first.patients}"
        charts.append((f"{dataset}, {probe}", about, chart))
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
