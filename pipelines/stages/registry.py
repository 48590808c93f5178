"""Stages that the decoder process runs, by name."""

from __future__ import annotations

from collections.abc import Iterable

from crossdim.pipelines.stages.resize import FitStage
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import UsageError

#: By name. A new stage that runs in the decoder process has an entry here.
STAGES: dict[str, type[Stage]] = {FitStage.name: FitStage}


def register_stages(stages: Iterable[type[Stage]]) -> None:
    """Add stages; one that is registered already is skipped.

    Args:
        stages: of another package.

    Raises:
        UsageError: for another stage under a name that is taken.
    """
    for stage in stages:
        if STAGES.setdefault(stage.name, stage) is not stage:
            raise UsageError(f"there are two stages named {stage.name!r}; give the new one another name")
