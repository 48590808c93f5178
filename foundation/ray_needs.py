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
#: What Ray recommends; every worker, connection and open file of a cluster's head counts.
ENOUGH_FILES = 65536
#: Below it a long preparation or run may meet the limit; ours.
FEW_FILES = 4096

#: What a machine may lack.
FOLDER, MEMORY, FILES = "Ray's folder", "shared memory", "open files"


def find_ray_folder() -> tuple[Path, Path]:
    """The folder that Ray writes its sessions to, and the nearest one above it that exists already."""
    folder = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    return folder, next(place for place in (folder, *folder.absolute().parents) if place.exists())


def find_lacks() -> dict[str, tuple[str, str]]:
    """What this machine lacks for Ray: what is wrong and what to do, by what it concerns."""
    folder, there = find_ray_folder()
    lacks: dict[str, tuple[str, str]] = {}
    if not os.access(there, os.W_OK):
        lacks[FOLDER] = (f"{folder} cannot be written to", "name another folder: export RAY_TMPDIR=/PATH")
    elif shutil.disk_usage(there).free < FREE_BYTES:
        lacks[FOLDER] = (
            f"{folder} is full",
            f"free {FREE_BYTES // 2**20} MB there, or name another folder: export RAY_TMPDIR=/PATH",
        )
    if SHARED_MEMORY.exists() and not os.access(SHARED_MEMORY, os.W_OK):
        lacks[MEMORY] = (f"{SHARED_MEMORY} cannot be written to", f"let everybody write to it: sudo chmod 1777 {SHARED_MEMORY}")
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < OPEN_FILES:
        lacks[FILES] = (f"a process may open only {limit} files", advise_open_files(most))
    return lacks


def advise_open_files(most: int) -> str:
    """What to do about a low limit of open files, where a process may raise it to ``most`` itself."""
    if most == resource.RLIM_INFINITY or most >= FEW_FILES:
        return f"ulimit -n {ENOUGH_FILES if most == resource.RLIM_INFINITY else min(most, ENOUGH_FILES)}"
    container = f"in a container, docker run --ulimit nofile={ENOUGH_FILES}"
    return f"{container}; else log in again after: echo '* - nofile {ENOUGH_FILES}' | sudo tee -a /etc/security/limits.conf"


def refuse_machine() -> None:
    """Refuse to start Ray where it cannot start.

    Raises:
        RunError: naming everything that is missing, and what to do about it.
    """
    if lacks := find_lacks():
        said = "; ".join(f"{found}: {remedy}" for found, remedy in lacks.values())
        raise RunError(f"Ray cannot start on this machine: {said}")
