"""A decoder process whose decoders misbehave in every way that codecs do; started by tests in place of the real one."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import numpy as np

from crossdim.pipelines.decoder_process.server import supervise
from crossdim.pipelines.readers import DECODERS
from crossdim.pipelines.readers.raw import RawItem
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample, Scaling
from crossdim.storage_schema.vocabulary import Presentation

_seen: list[str] = []


class Panic(BaseException):
    """As pyo3 raises it."""


def sound(item: RawItem) -> Sample:
    _seen.append(item.uri)
    key, origin, patient = item.origin()
    array = np.frombuffer(item.data, np.uint8).reshape(1, 1, -1)
    return Sample(
        key=key,
        presentation=Presentation.IMAGE,
        array=array,
        modality=item.modality,
        scaling=Scaling(low=0, high=255),
        origin=origin,
        patient=patient,
        extra={"seen": len(_seen), "pid": os.getpid()},
    )


def panic(_: RawItem) -> Sample:
    raise Panic


def memory_in_python(_: RawItem) -> Sample:
    return sound(RawItem(uri="", files=(bytes(3 << 30),)))


def memory_in_native_code(_: RawItem) -> Sample:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    held = 0
    while libc.malloc(ctypes.c_size_t(64 << 20)):
        held += 64 << 20
    raise SampleError("malloc", f"malloc failed; {held >> 30} GiB were given")


def busy(_: RawItem) -> Sample:
    while True:
        pass


def waiting(_: RawItem) -> Sample:
    time.sleep(3600)
    raise AssertionError


def warned(item: RawItem) -> Sample:
    os.write(2, b"Corrupt JPEG data: premature end\n  of data segment\n")
    return sound(item)


def poisonous(item: RawItem) -> Sample:
    """Answers, and leaves harm behind that ends whatever comes next."""
    DECODERS["sound"] = lambda _: os.abort()
    return sound(item)


def dies_later(item: RawItem) -> Sample:
    """Answers, and ends its process a moment afterwards, which is at rest by then."""
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return sound(item)


DECODERS |= {
    "sound": sound,
    "abort": lambda _: os.abort(),
    "segfault": lambda _: ctypes.string_at(0),
    "exit": lambda _: os._exit(7),
    "killed": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "panic": panic,
    "memory_in_python": memory_in_python,
    "memory_in_native_code": memory_in_native_code,
    "busy": busy,
    "waiting": waiting,
    "warned": warned,
    "poisonous": poisonous,
    "dies_later": dies_later,
    "nonsense": lambda _: "no sample",
}

if __name__ == "__main__":
    supervise()
