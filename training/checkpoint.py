"""Checkpoint: the whole state of a run, written so that it is there or not there, and checked before it is believed.

``checkpoints/step-00000030/state.pt``, then ``hashes.json`` beside it, then the pointer ``checkpoints/latest``. A reader
starts at the pointer and goes back until a checkpoint's bytes have the hashes that stand beside them.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from foundation.bucket import Bucket
from storage_schema.digest import canonical_json
from storage_schema.errors import StorageError

FOLDER = "checkpoints"
LATEST = f"{FOLDER}/latest"
STATE, HASHES = "state.pt", "hashes.json"
_NAME = re.compile(r"checkpoints/(step-\d{8})/hashes\.json\Z")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Everything that a run needs to go on.

    Attributes:
        step: steps done.
        position: samples consumed globally, T: the whole data state.
        identity: what must agree on resume, see ``training.worker.identity``.
        model: state of the method.
        optimizer: state of the optimizer.
        average: state of the moving average of the weights; None if the run keeps none.
    """

    step: int
    position: int
    identity: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None = None

    @property
    def kept(self) -> dict[str, Any]:
        """The method's state that the run is judged by: the average where there is one."""
        if self.average is None:
            return self.model
        return {name.removeprefix("module."): value for name, value in self.average.items() if name != "n_averaged"}


def name_of(step: int) -> str:
    """Folder name of a checkpoint."""
    return f"step-{step:08d}"


def state_bytes(state: State) -> bytes:
    """A state as it is stored."""
    buffer = io.BytesIO()
    torch.save({name: getattr(state, name) for name in State.__dataclass_fields__}, buffer)
    return buffer.getvalue()


def save(run: Bucket, state: State, keep: int) -> None:
    """Write a checkpoint and let go of all but the newest ``keep``."""
    data, folder = state_bytes(state), f"{FOLDER}/{name_of(state.step)}"
    run.put(f"{folder}/{STATE}", data)
    run.put(f"{folder}/{HASHES}", canonical_json({STATE: hashlib.sha256(data).hexdigest()}))
    run.put(LATEST, name_of(state.step).encode())
    for old in complete(run)[:-keep]:
        run.delete(f"{FOLDER}/{old}")


def complete(run: Bucket) -> list[str]:
    """Names of the checkpoints that have their hash list, oldest first."""
    if not run.exists(FOLDER):
        return []
    found = (_NAME.match(stored.path) for stored in run.listing(FOLDER) if stored.path.endswith(HASHES))
    return sorted(match[1] for match in found if match)


def load(run: Bucket, passed_over: Callable[[str, str], None] = lambda name, reason: None) -> State | None:
    """The newest checkpoint whose bytes are what was written; None for a run that has none yet.

    Args:
        run: folder of the run.
        passed_over: told the name of each checkpoint that is not whole, and why; the log is told too.

    Raises:
        StorageError: if there are checkpoints and not one of them is whole: a run never starts from zero by itself.
    """
    names = complete(run)
    newest = run.read(LATEST).decode() if run.exists(LATEST) else None
    for name in sorted(names, key=lambda n: (n == newest, n), reverse=True):
        state = _checked(run, name, passed_over)
        if state is not None:
            return state
    if names or newest:
        raise StorageError(f"{run.where(FOLDER)}: none of {names or [newest]} is whole; restore one, or start at another --out")
    return None


def _checked(run: Bucket, name: str, passed_over: Callable[[str, str], None]) -> State | None:
    folder = f"{FOLDER}/{name}"
    try:
        hashes, data = json.loads(run.read(f"{folder}/{HASHES}")), run.read(f"{folder}/{STATE}")
        if hashes[STATE] == hashlib.sha256(data).hexdigest():
            return State(**torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
        reason = "its bytes do not have the recorded sha256"
    except (StorageError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error)
    _LOG.warning("checkpoint %s is passed over: %s", run.where(folder), reason)
    passed_over(name, reason)
    return None
