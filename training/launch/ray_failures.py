"""When Ray Train starts the workers of a run again after a failure, and when it gives up.

Ray's own policy counts failures over the whole run, or not at all. A run of months must survive many, but must not be tried for
ever at the same step, so failures are counted between checkpoints.

Ray Train has no public place for a failure policy: ``TorchTrainer.fit`` builds its own and hands it to
``_initialize_and_run_controller``, where ``ray_scaling.RunTrainer`` puts this one instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CrossdimError, StepError, StorageError
from crossdim.training.run_dir.checkpoint_listing import newest_step

#: Starts in a row without a new checkpoint after which a run ends.
MAX_STARTS = 3


@dataclass(kw_only=True, slots=True)
class FailureCounter:
    """Counts failures that no checkpoint lies between.

    Attributes:
        step: of the newest checkpoint at the latest failure.
        count: failures since that checkpoint.
        reasons: of these failures.
    """

    step: int = -1
    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, saved: int, errors: Sequence[BaseException]) -> str | None:
        """Count a failure.

        Args:
            saved: steps in the newest checkpoint.
            errors: of the workers.

        Returns:
            Why the run must end; None if it is to be tried again.
        """
        if saved > self.step:
            self.step, self.count, self.reasons = saved, 0, []
        self.count += 1
        self.reasons.append(summarize(errors))
        final = [e for e in errors if isinstance(e, CrossdimError) and not isinstance(e, StorageError | StepError)]
        if final:
            return summarize(final)
        if self.count < MAX_STARTS:
            return None
        listed = "; ".join(f"{number}. {reason}" for number, reason in enumerate(self.reasons, 1))
        return (
            f"{self.count} starts in a row from step {saved} failed before the next checkpoint: {listed}. If machines were lost "
            "and no step is at fault, the same line goes on; a lower --checkpoint-every lets a run get further between losses"
        )


def summarize(errors: Sequence[BaseException]) -> str:
    """Summarize errors in one sentence: the first of ours, because others often follow from it, else the first."""
    ours = [str(e) for e in errors if isinstance(e, CrossdimError)]
    return ours[0] if ours else next((" ".join(str(e).split())[:300] for e in errors), "no reason was given")


def find_causes(errors: Sequence[BaseException]) -> list[BaseException]:
    """The errors that Ray's errors of workers were caused by."""
    return [getattr(error, "cause", None) or error for error in errors]


def find_worker_errors(error: TrainingFailedError) -> list[BaseException]:
    """The errors of workers that Ray Train reports; none if it is not workers that failed."""
    if isinstance(error, WorkerGroupError):
        return find_causes(list(error.worker_failures.values()))
    causes = find_causes([error.controller_failure]) if isinstance(error, ControllerError) else []
    return [cause for cause in causes if isinstance(cause, RayActorError)]


class CheckpointFailurePolicy(DefaultFailurePolicy):
    """Raises after :data:`MAX_STARTS` failures of workers without a checkpoint between them, or at once where it is no use.

    A worker that dies while it is started or ended, between two polls, counts as any other; Ray takes it for a failure of the
    controller and would end the run. Machines that are announced to go, and other failures of the controller, are decided on as
    Ray does, without a limit.

    Args:
        run: folder of the run.
        mailbox: the reason is left there for the driver.
    """

    def __init__(self, run: Bucket, mailbox: Any) -> None:
        super().__init__(FailureConfig(max_failures=-1))
        self._run, self._mailbox, self._counter = run, mailbox, FailureCounter()

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        """Decide whether the workers are started again."""
        if errors := find_worker_errors(training_failed_error):
            if reason := self._counter.add(newest_step(self._run), errors):
                ray.get(self._mailbox.put_failure.remote(reason))
                return FailureDecision.RAISE
            if isinstance(training_failed_error, ControllerError):
                return FailureDecision.RETRY
        return super().make_decision(training_failed_error)
