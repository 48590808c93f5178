"""Names a process so that others can tell whether it still runs: on this machine at once, on others not at all.

A process id alone is used again, after a restart of the machine or by another process. Through /proc; where there is none,
nothing is known.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Place of the start time among the fields of /proc/PID/stat that follow the command's name.
_START = 19


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessIdentity:
    """A process of some machine.

    Attributes:
        host: name of the machine.
        pid: in its namespace of processes.
        boot: of the machine and the namespace; empty if not known.
        started: of the process, in the machine's ticks since its boot; empty if not known.
    """

    host: str
    pid: int
    boot: str = ""
    started: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_gone(self) -> bool:
        """Whether it is known not to run any more; False if it is at work, on another machine, or nothing is known."""
        return self._is_known() and _read_start(self.pid) != self.started

    def is_running(self) -> bool:
        """Whether it is known to run; False if it has ended, is on another machine, or nothing is known."""
        return self._is_known() and _read_start(self.pid) == self.started

    def _is_known(self) -> bool:
        return bool(self.started) and (self.host, self.boot) == (socket.gethostname(), _read_boot())


def identify_process() -> ProcessIdentity:
    """The identity of this process."""
    pid = os.getpid()
    return ProcessIdentity(host=socket.gethostname(), pid=pid, boot=_read_boot(), started=_read_start(pid))


def _read_boot() -> str:
    with contextlib.suppress(OSError):
        return f"{_BOOT_ID.read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    return ""


def _read_start(pid: int) -> str:
    """When a process started; empty if there is none, or it has ended and only its parent has not asked for its exit code yet."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[_START]
    return ""
