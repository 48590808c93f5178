"""Where processes of this machine listen, by Linux's /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: 127.0.0.1, as the kernel writes it for an IPv4 socket and for an IPv6 one; ::1.
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


def listening(pid: int) -> set[tuple[str, int]]:
    """Where a process listens for TCP: addresses in hexadecimal, as the kernel writes them, and ports."""
    folder = Path(f"/proc/{pid}")
    inodes = set()
    for link in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (folder / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                found.add((host, int(port, 16)))
    return found


def command_line(pid: int) -> str:
    """As everybody on this machine can read it; empty for a process that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
