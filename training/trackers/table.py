"""The trackers by name: how each is opened, what it is called, and which variables decide where it sends to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from crossdim.training.trackers.base import Open
from crossdim.training.trackers.mlflow_tracker import MlflowTracker
from crossdim.training.trackers.wandb_tracker import WandbTracker


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackerKind:
    """A tracker.

    Attributes:
        title: for people.
        open: opens a run of it.
        variables: of the environment, which workers on other machines take from the command. No key is among them.
    """

    title: str
    open: Open
    variables: tuple[str, ...]


#: Name of ``--track``, which is also the package and the extra -> the tracker.
TRACKERS = {
    "wandb": TrackerKind(
        title="W&B",
        open=WandbTracker,
        variables=("WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT", "WANDB_NAME", "WANDB_DIR"),
    ),
    "mlflow": TrackerKind(
        title="MLflow",
        open=MlflowTracker,
        variables=("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ALLOW_FILE_STORE"),
    ),
}


def read_variables() -> dict[str, str]:
    """The variables of all trackers that are set in this process."""
    return {name: os.environ[name] for kind in TRACKERS.values() for name in kind.variables if name in os.environ}


def set_variables(values: Mapping[str, str]) -> None:
    """Set variables of trackers in this process, unless its machine has its own."""
    for name, value in values.items():
        os.environ.setdefault(name, value)
