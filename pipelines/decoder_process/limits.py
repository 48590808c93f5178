"""Limits of memory and time for the decoder process, for one input."""

from __future__ import annotations

import math
import os
import resource
from dataclasses import dataclass
from functools import cache

from crossdim.pipelines.readers.raw import RawItem

#: For any input: codec tables, headers, and small images however their codec holds them. Our choice.
BASE_MEMORY = 1 << 30
#: A file is held as it was received, once more in its parsed header, and once as the codec's own copy.
COPIES_OF_FILE = 3
#: JPEG 2000 holds four 32-bit planes of an image at its peak (samples, tile, wavelet rows, output), and gives 16-bit pixels.
#: Fitting, which comes afterwards, holds 24 at its peak: the image, and a plane that shrinks by one pixel in floating point.
BYTES_PER_PIXEL = 32
#: Of a volume: 8 in the file's widest type, 4 as float32, 4 for the masks and slabs of what is done to it.
BYTES_PER_VOXEL = 16
#: Processor time for any input, and for each value that it promises: the slowest codec needs half. Our choice.
BASE_CPU_S = 20
VALUES_PER_CPU_S = 4_000_000
#: A decoder that waits instead of working is ended after this many times its processor time. Our choice.
WALL_PER_CPU = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits for one request. Address space counts above what the process has before it reads the input."""

    memory_bytes: int = BASE_MEMORY
    cpu_seconds: int = BASE_CPU_S

    @property
    def wall_seconds(self) -> float:
        """How many seconds to wait for the answer."""
        return float(self.cpu_seconds * WALL_PER_CPU)


def compute_limits(item: RawItem, *, volume: bool) -> Limits:
    """Compute the limits for one input: a base, and what its size and its header's promise add.

    Args:
        item: the input; its files and ``num_values`` count.
        volume: whether it is decoded as a volume, which takes more bytes per value than an image.

    Returns:
        Memory in bytes, and processor time in seconds.
    """
    file_bytes = COPIES_OF_FILE * sum(len(data) for data in item.files)
    values = item.num_values * (BYTES_PER_VOXEL if volume else BYTES_PER_PIXEL)
    return Limits(
        memory_bytes=BASE_MEMORY + file_bytes + values,
        cpu_seconds=BASE_CPU_S + math.ceil(item.num_values / VALUES_PER_CPU_S),
    )


@cache
def _memory_file(process: int) -> int:
    """An open descriptor of the system's memory statistics of this process; opening takes longer than reading."""
    return os.open(f"/proc/{process}/statm", os.O_RDONLY | os.O_CLOEXEC)


def enforce(limits: Limits) -> None:
    """Limit this process from now on; called before each request."""
    held = int(os.pread(_memory_file(os.getpid()), 100, 0).split()[0]) * resource.getpagesize()
    used = resource.getrusage(resource.RUSAGE_SELF)
    _soft(resource.RLIMIT_AS, held + limits.memory_bytes)
    _soft(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime) + limits.cpu_seconds)
    _soft(resource.RLIMIT_FSIZE, limits.memory_bytes)  # answers and messages lie in memory, but count as files
    _soft(resource.RLIMIT_CORE, 0)


def _soft(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
