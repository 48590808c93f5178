"""The failure policy of a run: what is tried again, how often, and what people are told in the end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import (
    CrossdimError,
    DocumentError,
    Problem,
    RunError,
    StepError,
    StorageError,
    UnreachableError,
)
from crossdim.training.launch.ray_failures import MAX_STARTS, CheckpointFailurePolicy, FailureCounter, summarize
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_state import CheckpointState

LOST = RuntimeError("The actor died\n  because its node was lost")


def test_three_failures_in_a_row_without_a_checkpoint_end_a_run_with_all_reasons() -> None:
    counter = FailureCounter()
    assert counter.add(40, [StepError("step 41: loss is not finite")]) is None
    assert counter.add(40, [StorageError("s3://lab does not answer")]) is None
    told = counter.add(40, [LOST])
    assert told is not None
    assert told.startswith(
        "3 starts in a row from step 40 failed before the next checkpoint: 1. step 41: loss is not finite; "
        "2. s3://lab does not answer; 3. The actor died because its node was lost. "
    )
    assert "the same line goes on" in told


def test_a_run_that_never_saved_is_counted_from_step_0() -> None:
    counter = FailureCounter()
    assert [counter.add(0, [LOST]) is None for _ in range(MAX_STARTS)] == [True, True, False]


def test_a_checkpoint_between_starts_the_count_anew() -> None:
    """And its reasons: those of before were overcome."""
    counter = FailureCounter()
    for saved in (10, 10, 11, 11, 30, 30):
        assert counter.add(saved, [StepError(f"after {saved}")]) is None
    told = counter.add(30, [StepError("the last")])
    assert told is not None
    assert "1. after 30; 2. after 30; 3. the last." in told
    assert "after 11" not in told


def test_a_checkpoint_that_was_taken_back_is_no_progress() -> None:
    """A damaged newest one may send a run back; it must not be tried for ever between two steps."""
    counter = FailureCounter()
    assert counter.add(30, [LOST]) is None
    assert counter.add(20, [LOST]) is None
    assert counter.add(30, [LOST]) is not None


@pytest.mark.parametrize(
    "error",
    [
        RunError("the checkpoint is of another run"),
        DocumentError("the run does not fit its data", [Problem(loc="workers", message="5 are too many")]),
    ],
)
def test_what_comes_again_with_every_try_ends_a_run_at_once(error: CrossdimError) -> None:
    """Also where another worker only felt it: it lost its connection to the one that knew why."""
    assert FailureCounter().add(0, [LOST, StorageError("connection closed"), error]) == str(error)


@pytest.mark.parametrize("error", [StorageError("full"), UnreachableError("away"), StepError("not finite"), LOST])
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    counter = FailureCounter()
    assert [counter.add(5, [error]) is None for _ in range(MAX_STARTS)] == [True, True, False]


def test_of_errors_that_follow_from_one_another_ours_is_told() -> None:
    assert summarize([LOST, StepError("step 7: loss is not finite"), RunError("stopped")]) == "step 7: loss is not finite"
    assert summarize([LOST]) == "The actor died because its node was lost"
    assert summarize([]) == "no reason was given"
    assert len(summarize([RuntimeError("x" * 5000)])) == 300


class _Mailbox:
    """Where a reason is left; methods are called as those of an actor's handle."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.put_failure = SimpleNamespace(remote=self.reasons.append)


def test_the_policy_decides_by_the_checkpoints_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses with a checkpoint between them are tried again for ever, whatever their number; without one, three times."""
    monkeypatch.setattr(ray, "get", lambda found: found)
    run, mailbox = Bucket(str(tmp_path)), _Mailbox()
    policy, lost = CheckpointFailurePolicy(run, mailbox), WorkerGroupError("lost", {0: LOST, 1: StorageError("away")})
    for step in range(1, 3 * MAX_STARTS):
        state = CheckpointState(step=step, position=step, identity={"config": {}}, model={}, optimizer={})
        checkpoint.save(run, state, Saving())
        assert policy.make_decision(lost) is FailureDecision.RETRY
    assert [policy.make_decision(lost) for _ in range(2)] == [FailureDecision.RETRY, FailureDecision.RAISE]
    assert mailbox.reasons[0].startswith(
        f"3 starts in a row from step {3 * MAX_STARTS - 1} failed before the next checkpoint: 1. away"
    )


def test_the_policy_raises_at_once_what_comes_again_with_every_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Ray has wrapped it; the driver reads the reason, because an error's text is Ray's."""
    monkeypatch.setattr(ray, "get", lambda found: found)
    mailbox, wrapped = _Mailbox(), RuntimeError("ray::train ... Traceback")
    wrapped.cause = RunError("the checkpoint is of another run")  # type: ignore[attr-defined]
    policy = CheckpointFailurePolicy(Bucket(str(tmp_path)), mailbox)
    assert policy.make_decision(WorkerGroupError("failed", {0: wrapped})) is FailureDecision.RAISE
    assert mailbox.reasons == ["the checkpoint is of another run"]


def test_announced_losses_are_tried_again_and_errors_of_the_controller_are_raised(tmp_path: Path) -> None:
    policy = CheckpointFailurePolicy(Bucket(str(tmp_path)), _Mailbox())
    going = PreemptionError(PreemptionInfo(deadline_ms=None, preempted_node_to_ranks={"a": [1]}))
    assert {policy.make_decision(going) for _ in range(3 * MAX_STARTS)} == {FailureDecision.RETRY}
    assert policy.make_decision(ControllerError(RunError("stopped as asked"))) is FailureDecision.RAISE


def test_a_worker_that_dies_while_it_is_started_counts_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Train calls it an error of the controller: seen when a machine was killed at the moment of another restart."""
    monkeypatch.setattr(ray, "get", lambda found: found)
    mailbox, died = _Mailbox(), ControllerError(RayActorError(error_msg="the actor died: its placement group was removed"))
    policy = CheckpointFailurePolicy(Bucket(str(tmp_path)), mailbox)
    decisions = [policy.make_decision(died) for _ in range(MAX_STARTS)]
    assert decisions == [FailureDecision.RETRY] * (MAX_STARTS - 1) + [FailureDecision.RAISE]
    assert "its placement group was removed" in mailbox.reasons[0]
