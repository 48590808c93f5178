"""The guard of a run: what is tried again, how often, and what people are told in the end. The rest of the warden needs Ray."""

from __future__ import annotations

import pytest

from crossdim.storage_schema.errors import (
    CrossdimError,
    DocumentError,
    Problem,
    RunError,
    StepError,
    StorageError,
    UnreachableError,
)
from crossdim.training.launch.ray_callbacks import ATTEMPTS, Guard, sentence

LOST = RuntimeError("The actor died\n  because its node was lost")


def test_three_failures_in_a_row_without_a_checkpoint_end_a_run_with_all_reasons() -> None:
    guard = Guard()
    assert guard.verdict(40, [StepError("step 41: loss is not finite")]) is None
    assert guard.verdict(40, [StorageError("s3://lab does not answer")]) is None
    told = guard.verdict(40, [LOST])
    assert told is not None
    assert told.startswith(
        "3 starts in a row from step 40 failed before the next checkpoint: 1. step 41: loss is not finite; "
        "2. s3://lab does not answer; 3. The actor died because its node was lost. "
    )
    assert "the same line goes on" in told


def test_a_run_that_never_saved_is_counted_from_step_0() -> None:
    guard = Guard()
    assert [guard.verdict(0, [LOST]) is None for _ in range(ATTEMPTS)] == [True, True, False]


def test_a_checkpoint_between_starts_the_count_anew() -> None:
    """And its reasons: those of before were overcome."""
    guard = Guard()
    for saved in (10, 10, 11, 11, 30, 30):
        assert guard.verdict(saved, [StepError(f"after {saved}")]) is None
    told = guard.verdict(30, [StepError("the last")])
    assert told is not None
    assert "1. after 30; 2. after 30; 3. the last." in told
    assert "after 11" not in told


def test_a_checkpoint_that_was_taken_back_is_no_progress() -> None:
    """A damaged newest one may send a run back; it must not be tried for ever between two steps."""
    guard = Guard()
    assert guard.verdict(30, [LOST]) is None
    assert guard.verdict(20, [LOST]) is None
    assert guard.verdict(30, [LOST]) is not None


@pytest.mark.parametrize(
    "error",
    [
        RunError("the checkpoint is of another run"),
        DocumentError("the run does not fit its data", [Problem(loc="workers", message="5 are too many")]),
    ],
)
def test_what_comes_again_with_every_try_ends_a_run_at_once(error: CrossdimError) -> None:
    """Also where another worker only felt it: it lost its connection to the one that knew why."""
    assert Guard().verdict(0, [LOST, StorageError("connection closed"), error]) == str(error)


@pytest.mark.parametrize("error", [StorageError("full"), UnreachableError("away"), StepError("not finite"), LOST])
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    guard = Guard()
    assert [guard.verdict(5, [error]) is None for _ in range(ATTEMPTS)] == [True, True, False]


def test_of_errors_that_follow_from_one_another_ours_is_told() -> None:
    assert sentence([LOST, StepError("step 7: loss is not finite"), RunError("stopped")]) == "step 7: loss is not finite"
    assert sentence([LOST]) == "The actor died because its node was lost"
    assert sentence([]) == "no reason was given"
    assert len(sentence([RuntimeError("x" * 5000)])) == 300
