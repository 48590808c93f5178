"""Checkpoints: the whole state of a run, stored completely or not at all, and checked by hashes when it is loaded.

``checkpoints/step-00000030/state.pt`` is written first, then ``hashes.json`` beside it, then the pointer ``checkpoints/latest``,
for people. A reader starts at the newest checkpoint that has its hashes and goes back until one has bytes of these hashes. Of a
sharded run weights and optimizer lie in ``parts/``, written by all ranks before that; their hashes are in the same list.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.errors import RunError, StorageError, UnreachableError, list_wrong_settings
from crossdim.training.run_dir import sharded
from crossdim.training.run_dir.checkpoint_listing import CheckpointListing, complete_names, parse_hashes
from crossdim.training.run_dir.checkpoint_state import CheckpointState, serialise_state
from crossdim.training.run_dir.layout import (
    CHECKPOINTS,
    HASHES,
    LATEST,
    PARTS,
    STATE,
    checkpoint_name,
    checkpoint_of,
    checkpoint_step,
    parts_path,
)
from crossdim.training.run_dir.records import is_count
from crossdim.training.torch_file import load_document

#: Called with the name of a checkpoint that is not taken, and the reason.
OnSkip = Callable[[str, str], None]
_LOG = logging.getLogger(__name__)


#: Raises a StorageError for a state that cannot be used.
Check = Callable[[CheckpointState], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """When checkpoints are written, and which of them stay. The end of a run is always written.

    Attributes:
        every: steps from one to the next; None if time decides.
        every_s: seconds from one to the next; None if steps decide.
        last: how many of the newest stay.
        for_good: those whose step is a multiple of it stay for good; None for none.
        at: steps after which one is written whatever ``every`` says, and stays for good.
    """

    every: int | None = 100
    every_s: float | None = None
    last: int = 3
    for_good: int | None = None
    at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.every is None) == (self.every_s is None):
            raise RunError(f"either steps or seconds say when to save; found every={self.every}, every_s={self.every_s}")
        numbers = {name: getattr(self, name) for name in ("every", "every_s", "last", "for_good")}
        if found := list_wrong_settings(self, **{name: number is None or number > 0 for name, number in numbers.items()}):
            raise RunError(f"steps, seconds and numbers of checkpoints are greater than 0; found {found}")

    def count(self, steps: int, step_s: float) -> int:
        """Estimate how many checkpoints a run writes.

        Args:
            steps: of the run.
            step_s: seconds of a step.

        Returns:
            Their number, rounded up.
        """
        regular = math.ceil(steps / self.every if self.every else steps * step_s / (self.every_s or math.inf))
        return regular + sum(0 < step < steps and not (self.every and step % self.every == 0) for step in self.at)

    def keeps(self, name: str, whole: list[str]) -> bool:
        """Whether a checkpoint is kept; one that is half-written is not.

        Args:
            name: of the checkpoint.
            whole: names of the complete checkpoints, oldest first.

        Returns:
            True for the newest ``last`` complete ones, and for those of every ``for_good`` steps and of the steps ``at``.
        """
        step = checkpoint_step(name)
        for_good = step in self.at or (self.for_good is not None and step % self.for_good == 0)
        return name in whole and (for_good or name in whole[-self.last :])


def save(run: Bucket, state: CheckpointState, saving: Saving, parts: Mapping[str, str] = MappingProxyType({})) -> int:
    """Write a checkpoint, then delete older ones that need not stay.

    Args:
        run: folder of the run.
        state: what to write.
        saving: which older checkpoints stay.
        parts: of a sharded run, the sha256 of every object in ``parts/``; these are written already.

    Returns:
        The size of ``state.pt`` in bytes.
    """
    data, name = serialise_state(state), checkpoint_name(state.step)
    hashes = {STATE: hashlib.sha256(data).hexdigest()} | {f"{PARTS}/{part}": sha256 for part, sha256 in parts.items()}
    run.put(f"{CHECKPOINTS}/{name}/{STATE}", data)
    run.put(f"{CHECKPOINTS}/{name}/{HASHES}", canonical_json(hashes))
    _write_pointer(run, name)
    _delete_old(run, name, saving)
    return len(data)


def _write_pointer(run: Bucket, name: str) -> None:
    """Write the pointer for people; no reader needs it, so one that cannot be written ends no run."""
    try:
        run.put(LATEST, name.encode())
    except UnreachableError:
        raise
    except StorageError as error:
        _LOG.warning("the pointer to the newest checkpoint is not written, and the run goes on without it: %s", error)


def _delete_old(run: Bucket, newest: str, saving: Saving) -> None:
    """Delete older checkpoints that are not kept, complete or half-written."""
    found = {name for stored in run.list_objects(CHECKPOINTS) if (name := checkpoint_of(stored.path))}
    whole = [name for name in complete_names(run) if name <= newest]  # what is named for later steps takes the place of none
    for name in sorted(found):
        if name < newest and not saving.keeps(name, whole):
            run.delete(f"{CHECKPOINTS}/{name}")


def load(
    run: Bucket,
    on_skip: OnSkip = lambda name, reason: None,
    below: int | None = None,
    check: Check = lambda state: None,
) -> CheckpointState | None:
    """Load the newest complete checkpoint, whose bytes are what was written.

    Args:
        run: folder of the run.
        on_skip: called with name and reason for each checkpoint that is damaged or incomplete; it is logged too.
        below: skip checkpoints of this step and later ones, whose parts were found damaged; None skips none.
        check: raises a StorageError for a state that does not fit; it is skipped as well.

    Returns:
        The state; None for a run that has no checkpoint yet.

    Raises:
        StorageError: if there are checkpoints and none of them is complete: a run never restarts from zero by itself.
    """
    found = CheckpointListing(run)
    for name in found.others:
        _LOG.warning("%s is ignored: %s", run.where(f"{CHECKPOINTS}/{name}"), found.find_fault(name))
    names = found.names
    for name in reversed(names):  # and not the pointer's first: a worker that was cut off may have set it back
        if below is not None and name >= checkpoint_name(below):
            continue
        state = _load_checked(run, name, on_skip, check)
        if state is not None:
            return state
    named = names or _read_pointer(run)
    if named:
        remedy = f"restore one, or start at another --out, or delete {run.where(CHECKPOINTS)} to train again from step 0"
        raise StorageError(f"{run.where(CHECKPOINTS)}: none of {named} is whole; {remedy}")
    return None


def _read_pointer(run: Bucket) -> list[str]:
    """Read the name of the checkpoint that the pointer names: one that was there. A damaged pointer is ignored."""
    if not run.exists(LATEST):
        return []
    try:
        return [run.read(LATEST).decode(errors="backslashreplace")]
    except UnreachableError:
        raise
    except StorageError as error:
        _LOG.warning("the pointer to the newest checkpoint is passed over: %s", error)
        return []


def load_step(run: Bucket, step: int) -> CheckpointState:
    """Load the checkpoint of one step.

    Args:
        run: folder of the run.
        step: steps done when it was written.

    Returns:
        The state.

    Raises:
        StorageError: if it is damaged or incomplete.
    """
    reasons: list[str] = []
    state = _load_checked(run, checkpoint_name(step), lambda name, reason: reasons.append(reason), lambda state: None)
    if state is None:
        raise StorageError(
            f"{run.where(CHECKPOINTS)}/{checkpoint_name(step)} was whole for rank 0 and is not here: {reasons[0]}; start again"
        )
    return state


def restore(run: Bucket, state: CheckpointState, module: nn.Module) -> None:
    """Load into a module the weights that the run is evaluated with.

    Args:
        run: folder of the run.
        state: a checkpoint of it.
        module: the method of the run.
    """
    if state.parts:
        sharded.read(run, parts_path(state.step), state.parts, dict(module.state_dict()), None)
    else:
        module.load_state_dict(state.kept)


def _load_checked(run: Bucket, name: str, on_skip: OnSkip, check: Check) -> CheckpointState | None:
    folder = f"{CHECKPOINTS}/{name}"
    try:
        hashes, data = parse_hashes(run.read(f"{folder}/{HASHES}")), run.read(f"{folder}/{STATE}")
        if hashes.pop(STATE) == hashlib.sha256(data).hexdigest():
            parts = {path.removeprefix(f"{PARTS}/"): sha256 for path, sha256 in hashes.items()}
            state = _check_types(CheckpointState(**load_document(data, STATE), parts=parts), name)
            check(state)
            return state
        reason = "its bytes do not have the recorded sha256"
    except (StorageError, ValueError, TypeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
    _LOG.warning("checkpoint %s is passed over: %s", run.where(folder), reason)
    on_skip(name, reason)
    return None


def _check_types(state: CheckpointState, name: str) -> CheckpointState:
    """Return the state if its members have their types and it is of the step that its folder is named by."""
    kinds = {"identity": dict, "model": dict, "optimizer": dict, "average": dict | None}
    wrong = [part for part, kind in kinds.items() if not isinstance(getattr(state, part), kind)]
    wrong += [part for part in ("step", "position") if not is_count(getattr(state, part))]
    if wrong or checkpoint_name(state.step) != name:
        raise ValueError(f"{STATE} has {', '.join(wrong)} of another type" if wrong else f"{STATE} is of step {state.step}")
    return state
