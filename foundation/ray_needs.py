"""What Ray needs of a machine, checked before it is started: without it Ray waits for a minute and reports something else."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from crossdim.storage_schema.errors import RunError

#: Seen: a session writes about 1 MB of logs when it starts, and opens some 60 files in its head. Ours, with room.
FREE_BYTES = 10 * 2**20
OPEN_FILES = 128
SHARED_MEMORY = Path("/dev/shm")


def refuse_machine() -> None:
    """Refuse to start Ray where it cannot start.

    Raises:
        RunError: naming everything that is missing, and what to do about it.
    """
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    lacks = []
    if not os.access(there, os.W_OK):
        lacks.append(f"{folder} cannot be written to: name another folder in RAY_TMPDIR")
    elif shutil.disk_usage(there).free < FREE_BYTES:
        lacks.append(f"{folder} is full: free {FREE_BYTES // 2**20} MB there, or name another folder in RAY_TMPDIR")
    if SHARED_MEMORY.exists() and not os.access(SHARED_MEMORY, os.W_OK):
        lacks.append(f"{SHARED_MEMORY} cannot be written to: mount shared memory there")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < OPEN_FILES:
        lacks.append(f"a process may open only {limit} files: ulimit -n 65536")
    if lacks:
        raise RunError(f"Ray cannot start on this machine: {'; '.join(lacks)}")
