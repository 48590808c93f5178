"""WandbTracker: a run of Weights & Biases.

Where it is sent, by whom, and whether at all is W&B's own business: ``wandb login``, ``WANDB_MODE``, ``WANDB_PROJECT`` and so on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from crossdim.storage_schema.errors import RunError
from crossdim.training.trackers.base import End, StepFigures, TrackedRun

_LOG = logging.getLogger(__name__)
PROJECT = "crossdim"
#: W&B gives up sending at the end of a run after so many seconds; what is left stays on disk for ``wandb sync``.
FINISH_S = 45.0
#: W&B would record the command line, with its keys, the console and the source: only what a tracker is told is sent.
QUIET: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
}


class WandbTracker:
    """Sends to a run of W&B. Steps are a column of their own: W&B's own counter knows nothing of steps done before."""

    def __init__(self, tracked: TrackedRun, identifier: str | None) -> None:
        import wandb

        settings = wandb.setup().settings
        if settings.mode == "online" and not wandb.login(prompt=False):  # it would ask on the terminal of the run
            raise RunError("this machine is not logged in; type wandb login, or set WANDB_MODE=offline and type wandb sync later")
        self.identifier = identifier or uuid4().hex[:8]
        self._run: Any = wandb.init(
            project=settings.project or PROJECT,
            id=self.identifier,
            name=settings.run_name or tracked.name,
            notes=tracked.where,
            config=dict(tracked.settings),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(finish_timeout=FINISH_S, **QUIET),
        )
        self._run.define_metric("*", step_metric="step")
        if self._run.offline:
            _LOG.info("W&B is offline; later: wandb sync %s", self._run.settings.sync_dir)
        else:
            _LOG.info("W&B: %s", self._run.url)

    def log_steps(self, steps: Sequence[StepFigures]) -> None:
        """Send the numbers of steps."""
        for step, figures in steps:
            self._run.log({"step": step, **figures})

    def log_text(self, name: str, text: str) -> None:
        """Set a text of the summary.

        Args:
            name: of the text.
            text: for people.
        """
        self._run.summary[name] = text

    def close(self, end: End) -> None:
        """Finish the run of W&B; another start resumes it."""
        self._run.finish(exit_code=int(end == "failed"))
