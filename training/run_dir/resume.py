"""Moves a run's state between training and checkpoints: captures it to be saved, and resumes from the newest checkpoint."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, StorageError
from crossdim.training.engine.train_state import TrainState
from crossdim.training.run_dir import checkpoint, sharded
from crossdim.training.run_dir.checkpoint import Check, OnSkip
from crossdim.training.run_dir.checkpoint_contents import check_contents
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.differences import describe_differences
from crossdim.training.run_dir.layout import checkpoint_name, parts_path

_LOG = logging.getLogger(__name__)


def capture(state: TrainState, step: int, position: int, identity: dict[str, Any]) -> CheckpointState:
    """Collect everything that a run needs to continue from here, except what a sharded run keeps in parts. Nothing is copied.

    Args:
        state: of the training.
        step: steps done.
        position: samples consumed by all ranks together.
        identity: of the run.

    Returns:
        The state, which shares its tensors with ``state``.
    """
    return CheckpointState(
        step=step,
        position=position,
        identity=identity,
        model={} if state.sharded else dict(state.method.state_dict()),
        optimizer={} if state.sharded else state.optimizer.state_dict(),
        average=dict(state.average.state_dict()) if state.average else None,
    )


def load_into(state: TrainState, run: Bucket, saved: CheckpointState) -> None:
    """Load a checkpoint of a run of the same identity.

    Args:
        state: is changed in place.
        run: folder of the run; parts of a sharded run are read from it.
        saved: the checkpoint.

    Raises:
        StorageError: on all ranks, if a part is damaged or missing; the state must then be loaded from another checkpoint.
    """
    if state.sharded:
        sharded.read(run, parts_path(saved.step), saved.parts, state.tensors(), None)
    else:
        state.load(saved.model, saved.optimizer)
    if state.average:
        assert saved.average is not None  # equal identities keep equal averages
        state.average.load_state_dict(saved.average)


def resume(run: Bucket, state: TrainState, identity: dict[str, Any], rank: int) -> tuple[int, list[str]]:
    """Load the newest checkpoint that is whole, if there is one. All ranks call it.

    Args:
        run: folder of the run.
        state: of step 0; is changed in place.
        identity: of the run that goes on.
        rank: of this process.

    Returns:
        The number of steps done, and which newer checkpoints were skipped, with the reasons.

    Raises:
        RunError: if the checkpoint is of another run.
        StorageError: if there are checkpoints and none is whole.
    """
    skipped: list[str] = []
    below: int | None = None
    while saved := _choose(run, state.device, rank, below, lambda name, reason: skipped.append(f"{name}: {reason}")):
        if saved.identity != identity:
            found = f"the checkpoint of step {saved.step} is of another run"
            raise RunError(f"{run.where('')}: {found}: {describe_differences(saved.identity, identity)}")
        try:
            load_into(state, run, saved)
        except StorageError as error:  # a part of it; so on all ranks
            below = saved.step
            skipped.append(f"{checkpoint_name(saved.step)}: {error}")
            continue
        _LOG.debug("resuming %s at step %d, position %d", run.where(""), saved.step, saved.position)
        return saved.step, skipped
    return 0, skipped


def _choose(
    run: Bucket, device: torch.device, rank: int, below: int | None, on_skip: OnSkip, check: Check = check_contents
) -> CheckpointState | None:
    """Load the checkpoint that rank 0 finds: a lost worker may still be writing one, so ranks that each look could differ."""
    saved = checkpoint.load(run, on_skip, below, check) if rank == 0 else None
    if dist.is_initialized() and dist.get_world_size() > 1:
        step = torch.tensor([saved.step if saved else 0], device=device)
        dist.broadcast(step, src=0)
        if rank and step.item():
            saved = checkpoint.load_step(run, int(step.item()))
    return saved
