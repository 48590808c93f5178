"""The plan of a run as a table and as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from crossdim.foundation.plan_table import (
    Figure,
    build_figure_document,
    format_bytes,
    format_figures,
    format_hours,
    format_money,
    format_number,
    make_figure,
)
from crossdim.foundation.rates import format_seconds
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.launch.estimate import Probe
from crossdim.training.launch.run_plan import EXACT_POSITIONS, Reading
from crossdim.training.run_dir.checkpoint import Saving


def build_run_figures(
    config: Pretraining,
    found: Probe,
    shares: Sequence[Mapping[str, Any]],
    reading: Sequence[Reading],
    saving: Saving,
    prices: Mapping[str, float],
) -> tuple[list[str], list[Figure]]:
    """Build the table of a plan.

    Args:
        config: of the run.
        found: what was measured.
        shares: from :func:`plan_workers`.
        reading: from :func:`plan_reading`.
        saving: how often checkpoints are written and which stay.
        prices: by name; figures of money are shown for those that are given.

    Returns:
        The headings of its columns, and its lines.
    """
    total = config.steps * config.global_batch
    figures = [
        make_figure("steps", "steps", format_number, "of the run", config.steps),
        make_figure("samples", "samples", format_number, f"{config.steps:,} steps x {config.global_batch}", total),
        *_list_passes(reading),
        *_list_times(found, shares),
        *_list_transfers(found, shares, reading, saving, total),
        *_list_memory(found, shares),
    ]
    columns = [f"{share['workers']} worker{'' if share['workers'] == 1 else 's'}" for share in shares]
    return columns, [*figures, *_price(shares, total, prices)]


def _column(shares: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [share[name] for share in shares]


def _list_passes(reading: Sequence[Reading]) -> list[Figure]:
    return [
        make_figure(
            f"passes_{number}",
            f"passes over {one.name}",
            lambda value: f"{value:.2f}",
            f"{one.samples:,} samples by the order of the run",
            one.passes,
        )
        for number, one in enumerate(reading)
    ]


def _list_times(found: Probe, shares: Sequence[Mapping[str, Any]]) -> list[Figure]:
    timed = f"{found.step_s:.3g} s for {found.samples:g} samples, mean of {found.steps} steps here on {found.device}"
    busy = f"{found.cpu_step_s / found.step_s:.1f} processors busy here, all workers together"
    wall = f"{timed}; start {found.start_s:.0f} s"
    return [
        make_figure("wall_s", "wall time", format_seconds, wall, *_column(shares, "wall_s")),
        make_figure("cpu_hours", "processor time", format_hours, busy, *_column(shares, "cpu_hours")),
    ]


def _list_transfers(
    found: Probe, shares: Sequence[Mapping[str, Any]], reading: Sequence[Reading], saving: Saving, total: int
) -> list[Figure]:
    """What is read from the store and written to it."""
    measured = "by the catalog" if total <= EXACT_POSITIONS else "by mean sizes in the catalog"
    files = " + ".join(f"{name} {format_bytes(size)}" for name, size in found.stored_bytes.items())
    for_good = f", and {len(saving.at)} for good" if saving.at else ""
    kept = f"{files}; the {saving.last} newest stay{for_good}"
    read, writes = round(sum(one.num_bytes for one in reading)), "about: checkpoints, metrics, events"
    return [
        make_figure("read_bytes", "read", format_bytes, f"{measured}, all workers together", read),
        make_figure("requests", "range requests", format_number, "one a sample", total),
        make_figure("writes", "writes", format_number, writes, *_column(shares, "writes")),
        make_figure("checkpoint_bytes", "checkpoint", format_bytes, kept, sum(found.stored_bytes.values())),
        make_figure("checkpoints", "checkpoints", format_number, "rounded up", *_column(shares, "checkpoints")),
    ]


def _list_memory(found: Probe, shares: Sequence[Mapping[str, Any]]) -> list[Figure]:
    tensors = " + ".join(f"{name} {format_bytes(size)}" for name, size in found.fixed_bytes.items() if size)
    how = f"of each worker's process; tensors: {tensors}, {format_bytes(found.kept_bytes)} for the backward pass here"
    figures = [make_figure("host_bytes", "peak memory", format_bytes, how, *_column(shares, "host_bytes"))]
    if found.device_bytes:
        how = "of each worker's tensors on its GPU, most at a time here"
        figures.append(make_figure("device_bytes", "peak GPU memory", format_bytes, how, *_column(shares, "device_bytes")))
    return figures


def _price(shares: Sequence[Mapping[str, Any]], total: int, prices: Mapping[str, float]) -> list[Figure]:
    amounts = {
        "gpu_hour": ("price of GPUs", [share["workers"] * share["wall_s"] / 3600 for share in shares], "workers x hours"),
        "cpu_hour": ("price of processors", [share["cpu_hours"] for share in shares], "processor hours"),
        "request": (
            "price of requests",
            [(total + share["writes"]) / 1000 for share in shares],
            "thousand requests",
        ),
    }
    return [
        Figure(
            key=f"price_{key}",
            name=name,
            values=tuple(amount * prices[key] for amount in found),
            show=format_money,
            how=f"{unit} x {prices[key]:g}",
        )
        for key, (name, found, unit) in amounts.items()
        if key in prices
    ]


def build_run_document(
    config: Pretraining,
    found: Probe,
    shares: Sequence[Mapping[str, Any]],
    reading: Sequence[Reading],
    columns: Sequence[str],
    figures: Sequence[Figure],
) -> dict[str, Any]:
    """Build the plan as JSON values.

    Args:
        config: of the run.
        found: what was measured.
        shares: from :func:`plan_workers`.
        reading: from :func:`plan_reading`.
        columns: of the table.
        figures: of the table.

    Returns:
        The measurement, what it gives for each number of workers, what is read of each dataset, and the figures.
    """
    return {
        "probe": asdict(found),
        "workers": list(shares),
        "steps": config.steps,
        "requests": config.steps * config.global_batch,
        "datasets": list(map(asdict, reading)),
        "figures": build_figure_document(columns, figures),
    }


def format_run_plan(columns: Sequence[str], figures: Sequence[Figure], where: str) -> str:
    """Format the plan for people.

    Args:
        columns: of the table.
        figures: of the table.
        where: the run would lie.

    Returns:
        A heading, the table, and what is not in it.
    """
    return "\n".join(
        [
            f"plan of {where}: nothing was written or started",
            "",
            *format_figures(columns, figures),
            "",
            "Each worker is taken to be like this machine. Averaging gradients, starting Ray and writing to a remote store are",
            "not in it, and waiting for data is understated: a few steps are read ahead.",
        ]
    )
