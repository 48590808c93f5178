"""A decoder process whose decoders misbehave in every way that codecs do; started by tests in place of the real one."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from crossdim.pipelines.decoder_process.server import supervise
from crossdim.pipelines.readers.raw import RawItem
from crossdim.pipelines.readers.reader import Reader
from crossdim.pipelines.readers.registry import READERS
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


def reader(name: str, decode: Callable[[RawItem], Any]) -> Reader:
    return replace(READERS["png"], name=name, decode=decode)


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
    """Answers, and leaves damage behind that ends whatever comes next."""
    READERS["sound"] = reader("sound", lambda _: os.abort())
    return sound(item)


def dies_later(item: RawItem) -> Sample:
    """Answers, and ends its process a moment afterwards, which is at rest by then."""
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return sound(item)


BAD = {
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
READERS |= {name: reader(name, decode) for name, decode in BAD.items()}

if __name__ == "__main__":
    supervise()
