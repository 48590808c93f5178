"""MlflowTracker: a run of MLflow, by the client of ``mlflow-skinny``.

Where it is sent is MLflow's own business: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and its variables for credentials.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from crossdim.storage_schema.errors import RunError
from crossdim.training.trackers.base import End, StepFigures, TrackedRun

EXPERIMENT = "crossdim"
#: Of one request, by MLflow's own limits.
MOST_FIGURES, MOST_PARAMETERS = 1000, 100
LONGEST_VALUE = 6000
STATES: dict[End, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """Sends to a run of MLflow."""

    def __init__(self, tracked: TrackedRun, identifier: str | None) -> None:
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise RunError("MLFLOW_TRACKING_URI is not set; set it to your MLflow server, such as http://mlflow.local:5000")
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient()
        if identifier:
            self.identifier = identifier
            self._client.update_run(identifier, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        number = found.experiment_id if found else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=tracked.name, tags={"crossdim.run": tracked.where})
        self.identifier = run.info.run_id
        self._log_settings(tracked)

    def _log_settings(self, tracked: TrackedRun) -> None:
        from mlflow.entities import Param

        parameters = [Param(_name(path), str(value)[:LONGEST_VALUE]) for path, value in tracked.settings.items()]
        for first in range(0, len(parameters), MOST_PARAMETERS):
            self._client.log_batch(self.identifier, params=parameters[first : first + MOST_PARAMETERS])

    def log_steps(self, steps: Sequence[StepFigures]) -> None:
        """Send the numbers of steps, those of a step in one request."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        for batch in _cut(steps):
            metrics = [Metric(_name(name), value, now_ms, step) for step, figures in batch for name, value in figures.items()]
            self._client.log_batch(self.identifier, metrics=metrics)

    def log_text(self, name: str, text: str) -> None:
        """Set a tag of the run.

        Args:
            name: of the text.
            text: for people.
        """
        self._client.set_tag(self.identifier, _name(name), text)

    def close(self, end: End) -> None:
        """Set the state of the run."""
        self._client.set_terminated(self.identifier, STATES[end])


def _name(path: str) -> str:
    """A name of letters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", path)


def _cut(steps: Sequence[StepFigures]) -> Iterator[list[StepFigures]]:
    """Cut steps into requests."""
    batch: list[StepFigures] = []
    size = 0
    for step in steps:
        if batch and size + len(step[1]) > MOST_FIGURES:
            yield batch
            batch, size = [], 0
        batch.append(step)
        size += len(step[1])
    if batch:
        yield batch
