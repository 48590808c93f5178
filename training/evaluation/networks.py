"""Networks that are evaluated: those of a run's checkpoints, and untrained ones."""

from __future__ import annotations

import logging
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, StorageError
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.methods.base import Method
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.checkpoint_contents import check_contents

_LOG = logging.getLogger(__name__)


def build_untrained(config: Pretraining, seed: int) -> Method:
    """The network as a run of that seed starts with.

    Args:
        config: of the run.
        seed: of the weights.

    Returns:
        The method in evaluation mode.
    """
    return config.build_method(seed).eval()


def load_trained(run: Bucket) -> tuple[Pretraining, Method, dict[str, Any], int]:
    """Load the newest checkpoint of a run that can be read.

    Returns:
        Configuration, network, identity and step.

    Raises:
        RunError: if there is no checkpoint.
        StorageError: if there are checkpoints, but none of them can be read.
    """
    below: int | None = None
    while state := checkpoint.load(run, below=below, check=check_contents):
        config = read_config(state.identity["config"], run.where("the newest checkpoint"))
        method = build_untrained(config, config.seed)
        try:
            checkpoint.restore(run, state, method)
        except StorageError as error:  # a part of it
            below = state.step
            _LOG.warning("checkpoint of step %d is passed over: %s", state.step, error)
            continue
        return config, method, state.identity, state.step
    raise RunError(f"{run.where('')} holds no checkpoint; pretrain it first")


def load_at_step(run: Bucket, config: Pretraining, step: int) -> Method:
    """Load the checkpoint of one step.

    Args:
        run: folder of the run.
        config: of the run.
        step: steps done when it was written.

    Returns:
        The network.

    Raises:
        StorageError: if it is damaged or incomplete.
    """
    reasons: list[str] = []
    state = checkpoint.load(run, lambda name, reason: reasons.append(reason), below=step + 1, check=check_contents)
    if state is None or state.step != step:
        raise StorageError(reasons[0] if reasons else "it is not there")
    method = build_untrained(config, config.seed)
    checkpoint.restore(run, state, method)
    return method
