"""What a run's folder tells: configuration, steps, events, and the newest evaluation with its pictures. Needs no torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.page.pictures import Gallery
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.training.run_dir.attempts import list_attempts, read_attempt
from crossdim.training.run_dir.events import list_events, read_event
from crossdim.training.run_dir.layout import CHECKPOINT_PROBES, EVALUATION, PICTURES, step_pictures_path
from crossdim.training.run_dir.metrics import read_log
from crossdim.training.run_dir.picture_log import list_picture_steps, parse_galleries, read_step_pictures
from crossdim.training.run_dir.records import Record
from crossdim.training.run_dir.run_config import RunConfig, read_run_config
from crossdim.training.run_dir.status import Status, read_status
from crossdim.training.show.evaluation import CheckpointResult, Evaluation, parse_checkpoint_results, parse_evaluation

#: Kinds of events that a page marks: all but the checkpoints, of which there are many.
UNMARKED = ("checkpoint",)
AGAIN = "run crossdim evaluate again"
#: A page shows the pictures of so many steps, which bounds its size.
SHOWN_STEPS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """A run as its folder describes it.

    Attributes:
        damaged: steps that cannot be read.
        events: all but checkpoints, oldest first.
        evaluation: the newest; None if there is none.
        galleries: pictures that the evaluation drew.
        of_checkpoints: probes of checkpoints, by step.
        step_pictures: pictures that the run drew, by the number of steps done; of many the first, the last and some between.
        problems: sentences on files that are damaged.
        attempts: commands that worked on the run, oldest first.
    """

    status: Status
    config: RunConfig
    metrics: Sequence[Record]
    damaged: int
    events: Sequence[Record]
    evaluation: Evaluation | None
    galleries: Sequence[Gallery]
    of_checkpoints: Sequence[CheckpointResult] = ()
    step_pictures: Mapping[int, Sequence[Gallery]] = field(default_factory=dict)
    problems: Sequence[str] = ()
    attempts: Sequence[Record] = ()


def read_facts(
    run: Bucket,
    now: float,
    identity: dict[str, Any] | None = None,
    *,
    with_pictures: bool = True,
    most_steps: int | None = None,
) -> RunFacts:
    """Read what a run's folder tells.

    Args:
        run: its folder.
        now: the reader's clock, in seconds since 1970.
        identity: of the run, if it is known from a checkpoint: then its configuration may be damaged or missing.
        with_pictures: whether pictures are read, which are most of the bytes and only a page shows.
        most_steps: newest steps whose metrics are read, about; None for all.

    Returns:
        The facts; what is damaged is left out and counted.

    Raises:
        RunError: if there is no run.
        DocumentError: if its configuration is damaged.
        StorageError: if the store does not answer.
    """
    status = read_status(run, now, None if identity is None else identity["config"]["steps"])
    metrics, damaged = read_log(run, most_steps)
    problems: list[str] = []
    evaluation = _read_document(run, EVALUATION, "results", problems)
    parsed = parse_evaluation(evaluation) if evaluation else None
    if parsed and evaluation and (lost := len(evaluation["results"]) - len(parsed.results)):
        problems.append(f"{lost} of the results in {run.where(EVALUATION)} cannot be read; {AGAIN}")
    probes = _read_document(run, CHECKPOINT_PROBES, "results", problems) or {"results": []}
    of_checkpoints = parse_checkpoint_results(probes)
    if lost := len(probes["results"]) - len(of_checkpoints):
        problems.append(f"{lost} of the results in {run.where(CHECKPOINT_PROBES)} cannot be read; {AGAIN}")
    return RunFacts(
        status=status,
        config=_read_config(run, identity),
        metrics=metrics,
        damaged=damaged,
        events=[read_event(run, event) for event in list_events(run) if event.kind not in UNMARKED],
        evaluation=parsed,
        galleries=_read_galleries(run, problems) if with_pictures else [],
        of_checkpoints=of_checkpoints,
        step_pictures=_read_step_pictures(run, problems) if with_pictures else {},
        problems=problems,
        attempts=[read_attempt(run, path) for path in list_attempts(run)],
    )


def _read_galleries(run: Bucket, problems: list[str]) -> list[Gallery]:
    pictures = _read_document(run, PICTURES, "galleries", problems) or {}
    galleries = parse_galleries(pictures)
    if pictures.get("galleries") and not galleries:
        problems.append(f"{run.where(PICTURES)} is damaged; {AGAIN}")
    return galleries


def _read_step_pictures(run: Bucket, problems: list[str]) -> dict[int, Sequence[Gallery]]:
    steps = list_picture_steps(run)
    if len(steps) > SHOWN_STEPS:
        last = len(steps) - 1
        steps = [steps[round(number * last / (SHOWN_STEPS - 1))] for number in range(SHOWN_STEPS)]
    found = {step: read_step_pictures(run, step) for step in steps}
    lost = [step for step, galleries in found.items() if not galleries]
    problems += [f"{run.where(step_pictures_path(step))} cannot be read; its pictures are left out" for step in lost]
    return {step: galleries for step, galleries in found.items() if galleries}


def _read_config(run: Bucket, identity: dict[str, Any] | None) -> RunConfig:
    try:
        return read_run_config(run)
    except (DocumentError, StorageError):
        if identity is None:
            raise
        return RunConfig(identity=identity)


def _read_document(run: Bucket, path: str, member: str, problems: list[str]) -> dict[str, Any] | None:
    """A JSON object with this member; None, with a problem, if there is none that can be read."""
    if not run.exists(path):
        return None
    document = None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(run.read(path))
    if isinstance(document, dict) and isinstance(document.get(member), list):
        return document
    problems.append(f"{run.where(path)} is damaged; {AGAIN}")
    return None
