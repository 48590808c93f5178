"""The decoder process: ``python -m crossdim.pipelines.decoder_process.server SOCKET ANSWERS REQUESTS``, started by the client.

A supervisor imports every decoder once and forks a worker that answers requests. A worker that dies is replaced in
milliseconds, by one that has met no input yet. Both end when the client does, however it ends.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NoReturn

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin  # noqa: F401 - Pillow would import them at the first picture, in every worker

from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.decoder_process.limits import Limits, enforce
from crossdim.pipelines.decoder_process.messages import ARRAYS, Channel, Ended, Message
from crossdim.pipelines.quarantine import verdict_on
from crossdim.pipelines.readers import DECODERS
from crossdim.pipelines.readers.header_info import Facts
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.reasons import MAX_CHARACTERS, foreign_text, warning_text
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

_PR_SET_PDEATHSIG = 1
_STDERR = 2

Answer = tuple[dict[str, Any], list[memoryview]]


class _MoreNeeded(Exception):
    """The header goes on behind the bytes that were sent."""


def _probed(request: dict[str, Any], files: tuple[bytes, ...]) -> Answer:
    (head,) = files
    rules = from_document(ReadRules, request["rules"], subject="rules")

    def read(num_bytes: int) -> bytes:
        if num_bytes > len(head):
            raise _MoreNeeded
        return head[:num_bytes]

    try:
        found = probe(request["name"], request["size"], read, rules)
    except _MoreNeeded:
        return {"more": True}, []
    return {"facts" if isinstance(found, Facts) else "unread": to_document(found)}, []


def _decoded(request: dict[str, Any], files: tuple[bytes, ...]) -> Answer:
    item = from_document(RawItem, request["item"] | {"files": files}, subject="item")
    sample = DECODERS[request["decoder"]](item)
    arrays = {name: np.ascontiguousarray(getattr(sample, name)) for name in ARRAYS if getattr(sample, name) is not None}
    known = {field.name: to_document(getattr(sample, field.name)) for field in fields(Sample) if field.name not in ARRAYS}
    kinds = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    return {"sample": known, "arrays": kinds}, [array.data.cast("B") for array in arrays.values()]


_WORK: dict[str, Callable[[dict[str, Any], tuple[bytes, ...]], Answer]] = {"probe": _probed, "decode": _decoded}


def _answer(message: Message) -> tuple[Answer, bool]:
    """What the request asks for, or why there is none; and whether this worker should go on afterwards."""
    request = message.document
    enforce(from_document(Limits, request["limits"], subject="limits"))
    try:
        files, offset = [], 0
        for length in request["lengths"]:
            files.append(message.read(offset, length))
            offset += length
        answer = _WORK[request["work"]](request, tuple(files))
        told = _told_by_codecs()
        if told:
            raise SampleError("codec_warning", f"the codec warns: {foreign_text(UserWarning(told))}")
    except MemoryError:
        return ({"failed": "memory"}, []), False
    except Exception as error:  # the per-sample boundary of this process: what one input causes becomes its refusal
        refused = verdict_on("", "", error)
        at_fault = error.files if isinstance(error, SampleError) else ()
        return ({"refused": {"rule": refused.rule, "reason": refused.reason, "files": at_fault}}, []), True
    except BaseException:  # a codec in Rust panics with one
        return ({"failed": "panic"}, []), False
    else:
        return answer, True


def _told_by_codecs() -> str:
    """What native code wrote to standard error since it was last asked: where libraries leave their warnings."""
    num_bytes = os.fstat(_STDERR).st_size
    if not num_bytes:
        return ""
    text = os.pread(_STDERR, 4 * MAX_CHARACTERS, 0).decode(errors="replace")
    os.truncate(_STDERR, 0)
    os.lseek(_STDERR, 0, os.SEEK_SET)
    return text


def _serve(channel: Channel) -> None:
    os.dup2(os.memfd_create("stderr"), _STDERR)
    warnings.formatwarning = warning_text
    served = 0
    while True:
        with channel.received() as message:
            channel.send({"taken": served})
            _told_by_codecs()
            (document, parts), go_on = _answer(message)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        channel.send(document, parts)
        if not go_on:
            return
        served += 1


def _fork_worker(channel: Channel) -> tuple[int, int]:
    """Start a worker.

    Returns:
        Its process, and a descriptor that hangs up when it ends.
    """
    supervisor = os.getpid()
    alive, held_by_worker = os.pipe()
    worker = os.fork()
    if worker:
        os.close(held_by_worker)
        return worker, alive
    try:
        os.close(alive)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == supervisor:
            _serve(channel)
    except Ended:
        pass
    finally:
        os._exit(0)


def supervise() -> NoReturn:
    """Keep one worker alive, tell the client of each that died, and end with the client."""
    gc.freeze()
    descriptor, outgoing, incoming = map(int, sys.argv[1:])
    channel = Channel.of(socket.socket(fileno=descriptor), outgoing, incoming)
    while True:
        worker, alive = _fork_worker(channel)
        ends = select.poll()
        ends.register(channel.connection, 0)  # hang-ups alone
        ends.register(alive, 0)
        ended = dict(ends.poll())
        if descriptor in ended:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
            sys.exit(0)
        os.close(alive)
        _, status = os.waitpid(worker, 0)
        try:
            channel.send({"ended": os.waitstatus_to_exitcode(status)})
        except Ended:
            sys.exit(0)


if __name__ == "__main__":
    supervise()
