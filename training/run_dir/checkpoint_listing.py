"""Which checkpoints a run has, by their names and lists of hashes; ``checkpoint`` checks what is in them."""

from __future__ import annotations

import json
import re

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError, UnreachableError

FOLDER = "checkpoints"
LATEST = f"{FOLDER}/latest"
STATE, HASHES, PARTS = "state.pt", "hashes.json", "parts"
#: A list has a line of 100 bytes for each part, and a part for each rank.
LARGEST_LIST_BYTES = 1 << 26
_NAME = re.compile(r"step-\d{8}")


def name_of(step: int) -> str:
    """Folder name of a checkpoint."""
    return f"step-{step:08d}"


def step_of(name: str) -> int:
    """Steps in the checkpoint of a folder's name."""
    return int(name.removeprefix("step-"))


def parts_of(step: int) -> str:
    """Folder of the parts of a sharded checkpoint."""
    return f"{FOLDER}/{name_of(step)}/{PARTS}"


def parse_hashes(data: bytes) -> dict[str, str]:
    """The sha256 of each object of a checkpoint, by its path in the checkpoint's folder.

    Raises:
        ValueError: if the bytes are no such list, or the state is not in it.
    """
    found = json.loads(data)
    if not isinstance(found, dict) or STATE not in found or not all(isinstance(sha256, str) for sha256 in found.values()):
        raise ValueError(f"{HASHES} is no list of hashes that has {STATE}")
    return found


class CheckpointListing:
    """The folder of checkpoints at one moment.

    Attributes:
        names: of checkpoints that have a list of hashes, whatever it holds, oldest first.
        others: names in the folder that are of no such checkpoint, in order.
    """

    def __init__(self, run: Bucket) -> None:
        self._run = run
        stored = run.listing(FOLDER) if run.exists(FOLDER) else []
        self._sizes = {one.path.removeprefix(f"{FOLDER}/"): one.size for one in stored if one.path != LATEST}
        found = {path.partition("/")[0] for path in self._sizes}
        listed = {name for name in found if _NAME.fullmatch(name) and f"{name}/{HASHES}" in self._sizes}
        self.names, self.others = sorted(listed), sorted(found - listed)

    def lack(self, name: str) -> str | None:
        """Why a checkpoint is not complete, from its list of hashes and the objects that are there; None for one that is."""
        if name not in self.names:
            return f"there is no {HASHES}" if _NAME.fullmatch(name) else "no checkpoint is named so"
        path = f"{name}/{HASHES}"
        if self._sizes[path] > LARGEST_LIST_BYTES:
            return f"{HASHES} has {self._sizes[path]:,} bytes; no list of hashes is so long"
        try:
            hashes = parse_hashes(self._run.read(f"{FOLDER}/{path}"))
        except UnreachableError:
            raise
        except (StorageError, ValueError, RecursionError) as error:
            return str(error) or type(error).__name__
        gone = [one for one in hashes if f"{name}/{one}" not in self._sizes]
        return f"{gone[0]} is not there" if gone else None

    def newest_step(self) -> int:
        """Steps in the newest checkpoint that is complete; 0 for none."""
        return next((step_of(name) for name in reversed(self.names) if self.lack(name) is None), 0)

    def ignored(self, in_work: int = 0) -> dict[str, str]:
        """What is no complete checkpoint, with the reason: names that are none, and newer ones than the newest complete one.

        Args:
            in_work: checkpoints up to this step may be being written or deleted just now; they are left out.
        """
        newest = self.newest_step()
        found = [*self.others, *(name for name in self.names if step_of(name) > newest)]
        looked_at = [name for name in found if not (_NAME.fullmatch(name) and step_of(name) <= in_work)]
        return {name: lack for name in looked_at if (lack := self.lack(name))}


def newest_step(run: Bucket) -> int:
    """Steps in the newest checkpoint that is complete; 0 for none."""
    return CheckpointListing(run).newest_step()


def complete(run: Bucket) -> list[str]:
    """Names of the checkpoints that have their list of hashes, oldest first."""
    return CheckpointListing(run).names
