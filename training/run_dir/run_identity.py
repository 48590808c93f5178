"""Reads what a run was started as: from its ``config.json``, or from its newest checkpoint where that is damaged.

Every checkpoint contains the identity and is checked by its hash, so a damaged configuration does not end a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import DocumentError, RunError, StorageError
from crossdim.training.run_dir import checkpoint
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.layout import CONFIG
from crossdim.training.run_dir.run_config import read_run_config


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredIdentity:
    """What a run was started as.

    Attributes:
        identity: the same for all its starts.
        damage: where ``config.json`` is not what was written, a sentence on it; the identity is then the checkpoint's.
    """

    identity: dict[str, Any]
    damage: str | None = None


def read_identity(run: Bucket) -> StoredIdentity | None:
    """Read what the run in a folder was started as; None if its folder has no configuration.

    The newest whole checkpoint decides where the configuration is damaged, or is too old to carry its own digest.

    Raises:
        RunError: if it is damaged or somebody else's, and there is no checkpoint.
        StorageError: if it cannot be read, or there are checkpoints and none is whole.
    """
    if not run.exists(CONFIG):
        return None
    try:
        found = read_run_config(run)
    except DocumentError as error:
        return _read_from_checkpoint(run, error)
    if found.sealed or (state := checkpoint.load(run, check=_check_identity)) is None or state.identity == found.identity:
        return StoredIdentity(identity=found.identity)
    damage = f"{run.where(CONFIG)} is not what the checkpoint of step {state.step} says of the run"
    return StoredIdentity(identity=state.identity, damage=damage)


def _read_from_checkpoint(run: Bucket, error: DocumentError) -> StoredIdentity:
    message = " ".join(str(error).split())
    state = checkpoint.load(run, check=_check_identity)
    if state is None:
        remedy = "choose another --out, or, if nothing in this folder is needed, delete it and start again"
        raise RunError(f"{message}. There is no checkpoint to rebuild it from: {remedy}") from error
    return StoredIdentity(identity=state.identity, damage=f"{message}; it is rebuilt from the checkpoint of step {state.step}")


def _check_identity(state: CheckpointState) -> None:
    if not isinstance(state.identity.get("config"), dict):
        raise StorageError("its identity has no config")
