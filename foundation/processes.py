"""Processes: those that this one started, found through /proc where there is one, and ended with what they started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def descendants(root: int) -> list[int]:
    """Processes below ``root``; who has lost its parent is not among them."""
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


def started_with(name: str, value: str) -> list[int]:
    """Processes of this user that were started with this environment variable, also those that have lost their parent."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{name}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def kill(pids: Iterable[int]) -> None:
    """Signal 9 for each; for this process never."""
    for pid in pids:
        if pid != os.getpid():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
