"""Processes that this one started: found through /proc where there is one, and killed together with their children."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def find_descendants(root: int) -> list[int]:
    """Find the processes below ``root``; those whose parent has ended are not among them."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, parents = [], [root]
    while parents:
        below = children.get(parents.pop(), [])
        found += below
        parents += below
    return found


def find_started_with(name: str, value: str) -> list[int]:
    """Find this user's processes that were started with an environment variable, including those whose parent has ended.

    Args:
        name: of the variable.
        value: of the variable, exactly.

    Returns:
        Their process ids, in no order.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{name}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to each process but this one."""
    for pid in pids:
        if pid != os.getpid():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
