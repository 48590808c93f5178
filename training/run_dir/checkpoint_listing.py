"""Lists the checkpoints of a run by their names and lists of hashes; ``checkpoint`` checks what is in them."""

from __future__ import annotations

import json

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.training.run_dir.layout import CHECKPOINTS, HASHES, LATEST, STATE, checkpoint_step, is_checkpoint_name

#: A list has a line of 100 bytes for each part, and a part for each rank.
LARGEST_LIST_BYTES = 1 << 26


def parse_hashes(data: bytes) -> dict[str, str]:
    """Read the sha256 of each object of a checkpoint, by its path in the checkpoint's folder.

    Raises:
        ValueError: if the bytes are no such list, or the state is not in it.
    """
    found = json.loads(data)
    if not isinstance(found, dict) or STATE not in found or not all(isinstance(sha256, str) for sha256 in found.values()):
        raise ValueError(f"{HASHES} is no list of hashes that has {STATE}")
    return found


class CheckpointListing:
    """The checkpoints that a run's folder holds at one moment.

    Attributes:
        names: of checkpoints that have a list of hashes, whatever it holds, oldest first.
        others: names in the folder that are of no such checkpoint, in order.
    """

    def __init__(self, run: Bucket) -> None:
        self._run = run
        stored = run.list_objects(CHECKPOINTS) if run.exists(CHECKPOINTS) else []
        self._sizes = {one.path.removeprefix(f"{CHECKPOINTS}/"): one.size for one in stored if one.path != LATEST}
        found = {path.partition("/")[0] for path in self._sizes}
        listed = {name for name in found if is_checkpoint_name(name) and f"{name}/{HASHES}" in self._sizes}
        self.names, self.others = sorted(listed), sorted(found - listed)

    def find_fault(self, name: str) -> str | None:
        """Why a checkpoint is not complete, by its list of hashes and the objects that are there; None for a complete one."""
        if name not in self.names:
            return f"there is no {HASHES}" if is_checkpoint_name(name) else "no checkpoint is named so"
        path = f"{name}/{HASHES}"
        if self._sizes[path] > LARGEST_LIST_BYTES:
            return f"{HASHES} has {self._sizes[path]:,} bytes; no list of hashes is so long"
        try:
            hashes = parse_hashes(self._run.read(f"{CHECKPOINTS}/{path}"))
        except UnreachableError:
            raise
        except (StorageError, ValueError, RecursionError) as error:
            return str(error) or type(error).__name__
        gone = [one for one in hashes if f"{name}/{one}" not in self._sizes]
        return f"{gone[0]} is not there" if gone else None

    def newest_step(self) -> int:
        """Steps in the newest checkpoint that is complete; 0 for none."""
        return next((checkpoint_step(name) for name in reversed(self.names) if self.find_fault(name) is None), 0)

    def ignored(self, in_work: int = 0) -> dict[str, str]:
        """Names that readers ignore, with the reason: those of no checkpoint, and newer ones than the newest complete one.

        Args:
            in_work: checkpoints up to this step may be being written or deleted just now; they are left out.
        """
        newest = self.newest_step()
        found = [*self.others, *(name for name in self.names if checkpoint_step(name) > newest)]
        looked_at = [name for name in found if not (is_checkpoint_name(name) and checkpoint_step(name) <= in_work)]
        return {name: fault for name in looked_at if (fault := self.find_fault(name))}


def newest_step(run: Bucket) -> int:
    """The number of steps in the newest checkpoint that is complete; 0 for none."""
    return CheckpointListing(run).newest_step()


def complete_names(run: Bucket) -> list[str]:
    """Names of the checkpoints that have their list of hashes, oldest first."""
    return CheckpointListing(run).names
