"""Checkpoint: the whole state of a run, written so that it is there or not there, and checked before it is believed.

``checkpoints/step-00000030/state.pt``, then ``hashes.json`` beside it, then the pointer ``checkpoints/latest``, for people.
A reader starts at the newest that has its hashes and goes back until a checkpoint's bytes are what they say. Of a sharded run
weights and optimizer lie in ``parts/``, written by all ranks before that; their hashes stand in the same list.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import RunError, StorageError, UnreachableError, wrong_settings
from crossdim.training.run_dir import sharded
from crossdim.training.run_dir.checkpoint_listing import (
    FOLDER,
    HASHES,
    LATEST,
    PARTS,
    STATE,
    CheckpointListing,
    complete,
    name_of,
    parse_hashes,
    parts_of,
    step_of,
)
from crossdim.training.run_dir.records import is_count
from crossdim.training.torch_file import load_document

_PART = re.compile(r"checkpoints/(step-\d{8})/")

#: Told a name and a reason.
Told = Callable[[str, str], None]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Everything that a run needs to go on.

    Attributes:
        step: steps done.
        position: samples consumed globally, T: the whole data state.
        identity: what must agree on resume, see ``crossdim.training.launch.worker.identity``.
        model: state of the method.
        optimizer: state of the optimizer.
        average: state of the moving average of the weights; None if the run keeps none.
        parts: of a sharded run, the sha256 of every object in ``parts/``; model and optimizer are empty then.
    """

    step: int
    position: int
    identity: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None = None
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, Any]:
        """The method's state that the run is judged by: the average where there is one."""
        if self.average is None:
            return self.model
        return {name.removeprefix("module."): value for name, value in self.average.items() if name != "n_averaged"}

    @property
    def encoder(self) -> dict[str, Any]:
        """The weights of the encoder that the run is kept for."""
        return {name.removeprefix("encoder."): value for name, value in self.kept.items() if name.startswith("encoder.")}


def state_bytes(state: State) -> bytes:
    """A state as it is stored."""
    buffer = io.BytesIO()
    torch.save({name: getattr(state, name) for name in State.__dataclass_fields__ if name != "parts"}, buffer)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """When checkpoints are written, and which of them stay. The end of a run is always written.

    Attributes:
        every: steps from one to the next; None if time decides.
        every_s: seconds from one to the next; None if steps decide.
        last: how many of the newest stay.
        for_good: those whose step is a multiple of it stay for good; None for none.
    """

    every: int | None = 100
    every_s: float | None = None
    last: int = 3
    for_good: int | None = None

    def __post_init__(self) -> None:
        if (self.every is None) == (self.every_s is None):
            raise RunError(f"either steps or seconds say when to save; found every={self.every}, every_s={self.every_s}")
        numbers = {name: getattr(self, name) for name in ("every", "every_s", "last", "for_good")}
        if found := wrong_settings(self, **{name: number is None or number > 0 for name, number in numbers.items()}):
            raise RunError(f"steps, seconds and numbers of checkpoints are greater than 0; found {found}")

    def times(self, steps: int, step_s: float) -> int:
        """How many checkpoints a run of ``steps`` steps writes."""
        return math.ceil(steps / self.every if self.every else steps * step_s / (self.every_s or math.inf))

    def stays(self, name: str, whole: list[str]) -> bool:
        """Whether a checkpoint stays, where ``whole`` are there, oldest first; what is half-written does not."""
        for_good = self.for_good is not None and step_of(name) % self.for_good == 0
        return name in whole and (for_good or name in whole[-self.last :])


def save(run: Bucket, state: State, saving: Saving, parts: Mapping[str, str] = MappingProxyType({})) -> int:
    """Write a checkpoint whose ``parts`` are written already, then let go of what does not stay; the bytes of the state."""
    data, name = state_bytes(state), name_of(state.step)
    hashes = {STATE: hashlib.sha256(data).hexdigest()} | {f"{PARTS}/{part}": sha256 for part, sha256 in parts.items()}
    run.put(f"{FOLDER}/{name}/{STATE}", data)
    run.put(f"{FOLDER}/{name}/{HASHES}", canonical_json(hashes))
    _point_to(run, name)
    _tidy(run, name, saving)
    return len(data)


def _point_to(run: Bucket, name: str) -> None:
    """Write the pointer for people; no reader needs it, so one that cannot be written ends no run."""
    try:
        run.put(LATEST, name.encode())
    except UnreachableError:
        raise
    except StorageError as error:
        _LOG.warning("the pointer to the newest checkpoint is not written, and the run goes on without it: %s", error)


def _tidy(run: Bucket, newest: str, saving: Saving) -> None:
    """Delete older checkpoints, whole or half-written, that do not stay."""
    found = {match[1] for stored in run.listing(FOLDER) if (match := _PART.match(stored.path))}
    whole = [name for name in complete(run) if name <= newest]  # what is named for later steps takes the place of none
    for name in sorted(found):
        if name < newest and not saving.stays(name, whole):
            run.delete(f"{FOLDER}/{name}")


def load(
    run: Bucket,
    passed_over: Told = lambda name, reason: None,
    below: int | None = None,
    check: Callable[[State], None] = lambda state: None,
) -> State | None:
    """The newest checkpoint whose bytes are what was written; None for a run that has none yet.

    Args:
        run: folder of the run.
        passed_over: told the name of each checkpoint that is not whole, and why; the log is told too.
        below: take none of this step or a later one: its parts were found not to be whole.
        check: raises a StorageError for a state that does not fit; it is passed over as well.

    Raises:
        StorageError: if there are checkpoints and not one of them is whole: a run never starts from zero by itself.
    """
    found = CheckpointListing(run)
    for name in found.others:
        _LOG.warning("%s is ignored: %s", run.where(f"{FOLDER}/{name}"), found.lack(name))
    names = found.names
    for name in reversed(names):  # and not the pointer's first: a worker that was cut off may have set it back
        if below is not None and name >= name_of(below):
            continue
        state = _checked(run, name, passed_over, check)
        if state is not None:
            return state
    named = names or _pointed_to(run)
    if named:
        remedy = f"restore one, or start at another --out, or delete {run.where(FOLDER)} to train again from step 0"
        raise StorageError(f"{run.where(FOLDER)}: none of {named} is whole; {remedy}")
    return None


def _pointed_to(run: Bucket) -> list[str]:
    """The checkpoint that the pointer names: one that was there. A pointer that cannot be read is passed over."""
    if not run.exists(LATEST):
        return []
    try:
        return [run.read(LATEST).decode(errors="backslashreplace")]
    except UnreachableError:
        raise
    except StorageError as error:
        _LOG.warning("the pointer to the newest checkpoint is passed over: %s", error)
        return []


def load_step(run: Bucket, step: int) -> State:
    """The checkpoint of one step.

    Raises:
        StorageError: if it is not whole.
    """
    reasons: list[str] = []
    state = _checked(run, name_of(step), lambda name, reason: reasons.append(reason), lambda state: None)
    if state is None:
        raise StorageError(f"{run.where(FOLDER)}/{name_of(step)} was whole for rank 0 and is not here: {reasons[0]}; start again")
    return state


def restore(run: Bucket, state: State, module: nn.Module) -> None:
    """Give a module the weights that the run is judged by."""
    if state.parts:
        sharded.read(run, parts_of(state.step), state.parts, dict(module.state_dict()), None)
    else:
        module.load_state_dict(state.kept)


def _checked(run: Bucket, name: str, passed_over: Told, check: Callable[[State], None]) -> State | None:
    folder = f"{FOLDER}/{name}"
    try:
        hashes, data = parse_hashes(run.read(f"{folder}/{HASHES}")), run.read(f"{folder}/{STATE}")
        if hashes.pop(STATE) == hashlib.sha256(data).hexdigest():
            parts = {path.removeprefix(f"{PARTS}/"): sha256 for path, sha256 in hashes.items()}
            state = _sound(State(**load_document(data, STATE), parts=parts), name)
            check(state)
            return state
        reason = "its bytes do not have the recorded sha256"
    except (StorageError, ValueError, TypeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
    _LOG.warning("checkpoint %s is passed over: %s", run.where(folder), reason)
    passed_over(name, reason)
    return None


def _sound(state: State, name: str) -> State:
    """A state itself, once its parts are of their types and it is of the step that its folder is named by."""
    kinds = {"identity": dict, "model": dict, "optimizer": dict, "average": dict | None}
    wrong = [part for part, kind in kinds.items() if not isinstance(getattr(state, part), kind)]
    wrong += [part for part in ("step", "position") if not is_count(getattr(state, part))]
    if wrong or name_of(state.step) != name:
        raise ValueError(f"{STATE} has {', '.join(wrong)} of another type" if wrong else f"{STATE} is of step {state.step}")
    return state
