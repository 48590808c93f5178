"""The runs below a folder at a glance. Needs no torch."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.rates import format_seconds, format_size
from crossdim.storage_schema.errors import RunError, StorageError
from crossdim.storage_schema.names import printable
from crossdim.training.run_dir.layout import CONFIG, EVALUATION, is_of_a_run
from crossdim.training.run_dir.output_check import describes_run
from crossdim.training.run_dir.status import read_status

#: Runs that are read at a time: a far store takes a tenth of a second for each of a few small objects.
THREADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """One run of a list.

    Attributes:
        run: path below the folder; empty for the folder itself.
        state: as ``crossdim status`` says it, or ``unreadable``.
        step: steps done, of ``steps``.
        loss: of the newest step; None if none is known.
        best_probe: the highest figure of its evaluation, with its probe, dataset, the untrained networks' figure and whether
            the two differ; None if it was not evaluated.
        silence_s: since the last progress, by this machine's clock; None if no worker has written yet.
        num_bytes: of all its objects.
        problem: why it, or its evaluation, cannot be read; empty if it can.
    """

    run: str
    state: str
    step: int = 0
    steps: int = 0
    loss: float | None = None
    best_probe: str | None = None
    silence_s: float | None = None
    num_bytes: int
    problem: str = ""


def list_runs(folder: Bucket, now: float) -> list[RunRow]:
    """List the runs in a folder and below it.

    Args:
        folder: such as the one that holds the ``--out`` of several runs, or of a study.
        now: the reader's clock, in seconds since 1970.

    Returns:
        A row for each run, in the order of their paths; one that cannot be read has its problem in its row.

    Raises:
        StorageError: if there is no such folder, or it cannot be listed.
    """
    sizes = {stored.path: stored.size for stored in folder.list_objects()}
    with ThreadPoolExecutor(THREADS) as pool:
        roots = _find_roots(folder, sizes, pool)
        within: dict[str, dict[str, int]] = defaultdict(dict)
        for path, size in sizes.items():
            if (root := next((parent for parent, _ in _split_everywhere(path) if parent in roots), None)) is not None:
                within[root][path[len(root) :].lstrip("/")] = size
        return list(pool.map(partial(_read_row, folder, within), sorted(roots), [now] * len(roots)))


def _find_roots(folder: Bucket, paths: Iterable[str], pool: ThreadPoolExecutor) -> set[str]:
    """The folders that are runs, by the rule of ``check_run_folder``; but a configuration alone must be that of a run."""
    certain = {parent for path in paths for parent, below in _split_everywhere(path) if is_of_a_run(below)}
    configured = {parent for path in paths for parent, below in _split_everywhere(path) if below == CONFIG} - certain
    ordered = sorted(configured)
    return certain | {
        root for root, ours in zip(ordered, pool.map(partial(_is_configured, folder), ordered), strict=True) if ours
    }


def _is_configured(folder: Bucket, root: str) -> bool:
    try:
        return describes_run(_at(folder, root))
    except StorageError:
        return True  # the row tells the error: it may be a run


def _split_everywhere(path: str) -> Iterator[tuple[str, str]]:
    """Each folder that a path is in, the innermost first, and the path below it."""
    end = len(path)
    while (end := path.rfind("/", 0, end)) >= 0:
        yield path[:end], path[end + 1 :]
    yield "", path


def _at(folder: Bucket, root: str) -> Bucket:
    return folder.at(root) if root else folder


def _read_row(folder: Bucket, within: dict[str, dict[str, int]], root: str, now: float) -> RunRow:
    run, num_bytes = _at(folder, root), sum(within[root].values())
    try:
        status = read_status(run, now)
    except (RunError, StorageError, OverflowError) as error:
        return RunRow(run=root, state="unreadable", num_bytes=num_bytes, problem=f"{run.where('')}: {error}")
    best_probe, problem = _find_best_probe(run, status.step) if EVALUATION in within[root] else (None, "")
    return RunRow(
        run=root,
        state=status.state,
        step=status.step,
        steps=status.steps,
        loss=status.loss,
        best_probe=best_probe,
        silence_s=status.silence_s,
        num_bytes=num_bytes,
        problem=problem,
    )


def _find_best_probe(run: Bucket, step: int) -> tuple[str | None, str]:
    """The best figure of a run's evaluation, if there is one, and its step if the run has gone on; and why it cannot be read."""
    try:
        document = json.loads(run.read(EVALUATION))
        results, evaluated_at = document["results"], document.get("step", step)
        known = [result for result in results if math.isfinite(result["trained"])]
        best = max(known, key=lambda result: float(result["trained"]), default=None)
        if not best:
            return None, ""
        ours, theirs = (f"{best[name]:.3f} ± {best[f'{name}_spread']:.3f}" for name in ("trained", "untrained"))
        when = "" if evaluated_at == step else f" (at step {evaluated_at})"
        return f"{best['probe']} {ours} on {best['dataset']}, untrained {theirs}; {best['verdict']}{when}", ""
    except StorageError as error:
        return None, str(error)
    except (ValueError, LookupError, TypeError, RecursionError, OverflowError) as error:
        found = f"{type(error).__name__}: {error}"
        return None, f"{run.where(EVALUATION)} is not as crossdim evaluate writes it ({found}); run crossdim evaluate again"


def format_runs(folder: Bucket, rows: Sequence[RunRow]) -> str:
    """Format a list for people.

    Args:
        folder: that was listed.
        rows: of its runs.

    Returns:
        A line for each run, in columns, and below them what is wrong with those that cannot be read.
    """
    if not rows:
        return f"{folder.where('')} holds no run"
    table = [("run", "state", "step", "loss", "last progress", "size", "best probe"), *map(_format_row, rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join([*lines, *(printable(row.problem) for row in rows if row.problem)])


def _format_row(row: RunRow) -> tuple[str, ...]:
    return (
        printable(row.run) or ".",
        row.state,
        f"{row.step}/{row.steps}" if row.steps else "",
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if row.silence_s is None else f"{format_seconds(row.silence_s)} ago",
        format_size(row.num_bytes),
        printable(row.best_probe or ""),
    )
