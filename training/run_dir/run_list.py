"""The runs below a folder at a glance, and the removal of one. Needs no torch."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import format_location
from crossdim.foundation.rates import format_seconds
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.storage_schema.names import printable
from crossdim.training.run_dir.layout import CONFIG, EVALUATION, is_of_a_run, is_of_the_layout
from crossdim.training.run_dir.output_check import is_hidden
from crossdim.training.run_dir.status import AT_WORK, read_status

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
        best_probe: the highest figure of its evaluation, with its probe, dataset and the untrained networks' figure; None if
            it was not evaluated.
        silence_s: since the last progress, by this machine's clock; None if no worker has written yet.
        num_bytes: of all its objects.
        problem: why it cannot be read; empty if it can.
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
        A row for each run, in the order of their paths.

    Raises:
        StorageError: if there is no such folder.
    """
    paths = {stored.path: stored.size for stored in folder.list_objects()}
    roots = sorted(path.removesuffix(CONFIG).rstrip("/") for path in paths if path.rpartition("/")[2] == CONFIG)
    within: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in paths.items():
        if (root := _find_root(path, roots)) is not None:
            within[root][path[len(root) :].lstrip("/")] = size
    found = [root for root in roots if len(within[root]) == 1 or any(map(is_of_a_run, set(within[root]) - {CONFIG}))]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(partial(_read_row, folder, within, now), found))


def _find_root(path: str, roots: Sequence[str]) -> str | None:
    """The innermost of some folders that a path is in."""
    inside = [root for root in roots if not root or path.startswith(f"{root}/")]
    return max(inside, key=len, default=None)


def _read_row(folder: Bucket, within: dict[str, dict[str, int]], now: float, root: str) -> RunRow:
    run = folder.at(root) if root else folder
    num_bytes = sum(within[root].values())
    try:
        status = read_status(run, now)
    except RunError as error:
        return RunRow(run=root, state="unreadable", num_bytes=num_bytes, problem=str(error))
    return RunRow(
        run=root,
        state=status.state,
        step=status.step,
        steps=status.steps,
        loss=status.loss,
        best_probe=_find_best_probe(run) if EVALUATION in within[root] else None,
        silence_s=status.silence_s,
        num_bytes=num_bytes,
    )


def _find_best_probe(run: Bucket) -> str | None:
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
        results = json.loads(run.read(EVALUATION))["results"]
        best = max(results, key=lambda result: float(result["trained"]), default=None)
        if best:
            return f"{best['probe']} {best['trained']:.3f} on {best['dataset']}, untrained {best['untrained']:.3f}"
    return None


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
        _format_size(row.num_bytes),
        printable(row.best_probe or ""),
    )


def _format_size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def describe_removal(run: Bucket, now: float) -> str:
    """Check that a run may be removed, and say what that would remove.

    Args:
        run: its folder.
        now: the reader's clock, in seconds since 1970.

    Returns:
        A sentence for the question.

    Raises:
        UsageError: if the run is being trained, or its folder holds other files too.
        RunError: if there is no run.
    """
    status = read_status(run, now)
    stored = run.list_objects()
    if status.state in AT_WORK:
        raise UsageError(f"{run.where('')} is {status.state}; stop it first (Ctrl-C or SIGTERM)")
    others = [one.path for one in stored if not is_of_the_layout(one.path) and not is_hidden(one.path)]
    if others:
        raise UsageError(f"{run.where('')} holds other files too, such as {printable(others[0])}; move them elsewhere first")
    size = _format_size(sum(one.size for one in stored))
    return f"{format_location(run.url)}: {status.state}, step {status.step} of {status.steps}, {len(stored)} objects, {size}"


def remove_run(run: Bucket) -> None:
    """Remove a run, its configuration last: what is left after an interruption is still a run.

    Args:
        run: its folder.
    """
    for name in sorted({stored.path.partition("/")[0] for stored in run.list_objects()} - {CONFIG}):
        run.delete(name)
    run.delete(CONFIG)
    if run.is_local:
        run.delete("")
