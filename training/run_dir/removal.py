"""Removes a run: only what runs write, only what was checked, and never through a link. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from crossdim.foundation.bucket import Bucket, StoredObject, is_temporary
from crossdim.foundation.location import format_location
from crossdim.foundation.object_store import PROBLEMS
from crossdim.foundation.rates import format_size
from crossdim.foundation.removal import check_links
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.storage_schema.manifest import MANIFEST_PATH
from crossdim.storage_schema.names import printable
from crossdim.training.run_dir.layout import CONFIG, EVENTS, is_in_layout
from crossdim.training.run_dir.status import AT_WORK, State, read_status

#: A run in one of these states may be at work, though its folder does not show it.
UNCERTAIN: dict[State, str] = {
    "waiting": "no worker has started yet, and its pretrain command may still be waiting for machines",
    "silent": "it has not written for a while, and may still be training",
}
#: Hidden files that systems leave in any folder: of macOS, and of NFS for files that were deleted while open.
LITTER, NFS_PREFIX = ".DS_Store", ".nfs"
#: What a file of such a name begins, if it is not the run's own.
_OTHERS = {CONFIG: "another run", MANIFEST_PATH: "a dataset"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """A run that may be removed, as it was found.

    Attributes:
        run: its folder.
        state: of the run.
        step: steps done, of ``steps``.
        objects: everything in the folder; only these are removed.
    """

    run: Bucket
    state: State
    step: int
    steps: int
    objects: tuple[StoredObject, ...]

    def __str__(self) -> str:
        size = format_size(sum(one.size for one in self.objects))
        what = f"{self.state}, step {self.step} of {self.steps}, {len(self.objects)} objects, {size}"
        return f"{format_location(self.run.url)}{_describe_real_path(self.run)}: {what}"


def check_removal(run: Bucket, now: float, *, force: bool) -> Removal:
    """Check that a run may be removed.

    Args:
        run: its folder.
        now: the reader's clock, in seconds since 1970.
        force: whether a run may be removed that is waiting or silent.

    Returns:
        What would be removed.

    Raises:
        UsageError: if the run is being trained, or may be and ``force`` is not set; if its folder is a link, or holds links or
            files that runs do not write.
        RunError: if there is no run.
        StorageError: if the store does not answer.
    """
    status = read_status(run, now)
    where = run.where("")
    if status.state in AT_WORK:
        raise UsageError(f"{where} is {status.state}; stop it first (Ctrl-C or SIGTERM)")
    if not force and (reason := UNCERTAIN.get(status.state)):
        raise UsageError(f"{where} is {status.state}: {reason}; if no process trains it any more, pass --force")
    check_links(run)
    objects = run.list_objects(problems=True, temporary=True)
    _check_names(where, objects)
    return Removal(run=run, state=status.state, step=status.step, steps=status.steps, objects=tuple(objects))


def _describe_real_path(run: Bucket) -> str:
    """Where a folder really is, if a folder above it is a link."""
    real = os.path.realpath(run.root) if run.is_local else ""
    return f" (links lead to {printable(real)})" if real and real != run.root else ""


def _check_names(where: str, objects: Sequence[StoredObject]) -> None:
    if problem := next((one for one in objects if one.problem), None):
        raise UsageError(f"{where} cannot be removed: {printable(problem.path)} {PROBLEMS[problem.problem]}")
    others = [one.path for one in objects if not _is_removable(one.path)]
    for path in others:
        folder, _, name = path.rpartition("/")
        if name in _OTHERS:
            place = f"in {printable(folder)}/" if folder else f"too ({name})"
            raise UsageError(f"{where} holds {_OTHERS[name]} {place}; move it elsewhere first")
    if others:
        number = "another file" if len(others) == 1 else f"{len(others)} other files"
        raise UsageError(
            f"{where} holds {number} that runs do not write, such as {printable(others[0])}; move it elsewhere first"
        )


def _is_removable(path: str) -> bool:
    """Whether a path is one that runs or systems write."""
    *folders, name = path.split("/")
    if is_in_layout(path):
        return True
    left_behind = is_temporary(path) or name == LITTER or name.startswith(NFS_PREFIX)
    return left_behind and not any(folder.startswith(".") for folder in folders)


def remove_run(found: Removal, now: float, *, force: bool) -> bool:
    """Remove a run: each object by its exact name, and then the folders that are left empty.

    The configuration goes last: what is left after a failure is still a run. Events go before it, because they tell its state.

    Args:
        found: the run as it was checked.
        now: the reader's clock, in seconds since 1970.
        force: as in :func:`check_removal`.

    Returns:
        Whether its folder is gone, too.

    Raises:
        RunError: if the run is not as it was checked any more; then nothing was removed.
        UsageError: as :func:`check_removal`.
        StorageError: if something cannot be removed.
    """
    run = found.run
    if _contents(check_removal(run, now, force=force)) != _contents(found):
        raise RunError(f"{run.where('')} has changed since it was checked; see crossdim status, and repeat the command")
    paths = [one.path for one in found.objects]
    events = [path for path in paths if path.startswith(f"{EVENTS}/")]
    run.delete_exactly(set(paths) - {*events, CONFIG})
    run.delete_exactly(events)
    run.delete_exactly([CONFIG])
    run.delete_empty_folders()
    return not run.exists()


def _contents(found: Removal) -> list[tuple[str, int, str]]:
    return [(one.path, one.size, one.version) for one in found.objects]
