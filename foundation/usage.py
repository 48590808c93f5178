"""Processor time and memory of this process and of those that it started, as the system counts them."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from crossdim.foundation.processes import find_descendants


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Seconds so far by the clock, and of processors."""

    wall_s: float
    cpu_s: float

    def __sub__(self, before: Usage) -> Usage:
        return Usage(wall_s=self.wall_s - before.wall_s, cpu_s=self.cpu_s - before.cpu_s)


def measure_usage() -> Usage:
    """Measure the seconds so far of this process, of those it started, and of those that they have waited for."""
    own = os.times()
    cpu_s = own.user + own.system + own.children_user + own.children_system
    cpu_s += sum(map(read_cpu_s, find_descendants(os.getpid())))
    return Usage(wall_s=time.monotonic(), cpu_s=cpu_s)


def read_cpu_s(pid: int) -> float:
    """Read the processor seconds of a process and of those it has waited for; 0 if it has ended, or the system does not tell."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def measure_peak_bytes() -> int:
    """Measure the memory of this process and of those it started that are still there: the sum of the most that each has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak + sum(map(read_peak_bytes, find_descendants(os.getpid())))


def read_peak_bytes(pid: int) -> int:
    """Read the most memory that a process has held; 0 if it has ended, or the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
