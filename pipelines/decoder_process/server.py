"""The decoder process: ``python -m crossdim.pipelines.decoder_process.server SOCKET ANSWERS REQUESTS [MODULE ...]``.

The client starts it, with the modules whose readers and stages it has loaded itself.

A supervisor imports every decoder once and forks a worker that answers requests. A worker that dies is replaced in
milliseconds, by one that has met no input yet. Both end when the client does, however it ends.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NoReturn

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin  # noqa: F401 - Pillow would import them at the first picture, in every worker

from crossdim.foundation.settings import to_document
from crossdim.pipelines.decoder_process.limits import Limits, enforce
from crossdim.pipelines.decoder_process.messages import ARRAYS, Channel, Ended, Message
from crossdim.pipelines.decoder_process.settings_text import parse_settings
from crossdim.pipelines.extensions import load_extensions
from crossdim.pipelines.quarantine import build_quarantine_row
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.preview import read_preview
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.readers.source_values import count_source_values
from crossdim.pipelines.reasons import MAX_CHARACTERS, format_foreign_text, format_warning
from crossdim.pipelines.stages.registry import STAGES
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality

_PR_SET_PDEATHSIG = 1
_STDERR = 2
#: Number of the request that a worker took last: in memory that its supervisor reads when it has ended.
_TAKEN = struct.Struct("<Q")

Answer = tuple[dict[str, Any], list[memoryview]]


class _MoreNeeded(Exception):
    """The header is longer than the bytes that were sent."""


def _probe(request: dict[str, Any], files: tuple[bytes, ...]) -> Answer:
    (head,) = files
    rules = parse_settings(ReadRules, request["rules"])

    def read(num_bytes: int) -> bytes:
        if num_bytes > len(head):
            raise _MoreNeeded
        return head[:num_bytes]

    try:
        found = probe(request["name"], request["size"], read, rules)
    except _MoreNeeded:
        return {"more": True}, []
    _refuse_warned()
    return {"header" if isinstance(found, HeaderInfo) else "unread": to_document(found)}, []


def _read_sample(request: dict[str, Any], files: tuple[bytes, ...]) -> Sample:
    values = request["item"]
    typed = {"hashes": tuple(values["hashes"]), "modality": Modality(values["modality"])}
    item = RawItem(**values | typed, files=files, rules=parse_settings(ReadRules, request["rules"]))
    sample = READERS[request["reader"]].decode(item)
    _refuse_warned()
    return sample


def _count_values(request: dict[str, Any], files: tuple[bytes, ...]) -> Answer:
    return {"values": to_document(count_source_values(_read_sample(request, files)))}, []


def _preview(_request: dict[str, Any], files: tuple[bytes, ...]) -> Answer:
    found = read_preview(*files)
    picture = [] if found.picture is None else [np.ascontiguousarray(found.picture)]
    return {"fields": found.fields, "shapes": [one.shape for one in picture]}, [one.data.cast("B") for one in picture]


def _decode(request: dict[str, Any], files: tuple[bytes, ...]) -> Answer:
    stages = [parse_settings(STAGES[name], text) for name, text in request["stages"]]
    sample = _apply_stages(stages, _read_sample(request, files))
    arrays = {name: np.ascontiguousarray(getattr(sample, name)) for name in ARRAYS if getattr(sample, name) is not None}
    known = {field.name: to_document(getattr(sample, field.name)) for field in fields(Sample) if field.name not in ARRAYS}
    kinds = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    return {"sample": known, "arrays": kinds}, [array.data.cast("B") for array in arrays.values()]


def _apply_stages(stages: Sequence[Stage], sample: Sample) -> Sample:
    """Apply the stages to a sample; a refusal names the stage that raised it."""
    for stage in stages:
        try:
            sample = stage(sample)
        except MemoryError:
            raise
        except Exception as error:  # the per-sample boundary of one stage
            refused = build_quarantine_row("", stage.name, error)
            raise SampleError(refused.rule, refused.reason, stage=refused.stage) from error
    return sample


_WORK: dict[str, Callable[[dict[str, Any], tuple[bytes, ...]], Answer]] = {
    "probe": _probe,
    "decode": _decode,
    "values": _count_values,
    "preview": _preview,
}


def _answer(message: Message) -> tuple[Answer, bool]:
    """Answer a request, or say why there is no answer; and whether this worker should continue afterwards."""
    request = message.document
    enforce(Limits(**request["limits"]))
    try:
        files, offset = [], 0
        for length in request["lengths"]:
            files.append(message.read(offset, length))
            offset += length
        answer = _WORK[request["work"]](request, tuple(files))
    except MemoryError:
        return ({"failed": "memory"}, []), False
    except Exception as error:  # the per-sample boundary of this process: what one input causes becomes its refusal
        refused = build_quarantine_row("", "", error)
        at_fault = error.files if isinstance(error, SampleError) else ()
        why = {"stage": refused.stage, "rule": refused.rule, "reason": refused.reason, "files": at_fault}
        return ({"refused": why}, []), True
    except BaseException:  # a panic of a codec in Rust is one
        return ({"failed": "panic"}, []), False
    else:
        return answer, True


def _refuse_warned() -> None:
    """Refuse an input for which a codec printed a warning.

    Raises:
        SampleError: rule ``codec_warning``.
    """
    messages = _format_codec_messages()
    if messages:
        raise SampleError("codec_warning", f"the codec warns: {format_foreign_text(UserWarning(messages))}")


def _format_codec_messages() -> str:
    """Format what native code has written to standard error since the last call; libraries print their warnings there."""
    num_bytes = os.fstat(_STDERR).st_size
    if not num_bytes:
        return ""
    text = os.pread(_STDERR, 4 * MAX_CHARACTERS, 0).decode(errors="replace")
    os.truncate(_STDERR, 0)
    os.lseek(_STDERR, 0, os.SEEK_SET)
    return text


def _serve(channel: Channel, taken: mmap.mmap) -> None:
    os.dup2(os.memfd_create("stderr"), _STDERR)
    warnings.formatwarning = format_warning
    while True:
        with channel.receive() as message:
            _TAKEN.pack_into(taken, 0, message.document["number"])
            _format_codec_messages()
            (document, parts), go_on = _answer(message)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_AS)[1]))
        channel.send(document, parts)
        if not go_on:
            return


def _fork_worker(channel: Channel, taken: mmap.mmap) -> tuple[int, int]:
    """Start a worker.

    Args:
        channel: of the supervisor and all its workers, one after the other.
        taken: memory shared with the worker, for the number of the request that it takes.

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
            _serve(channel, taken)
    except Ended:
        pass
    finally:
        os._exit(0)


def supervise() -> NoReturn:
    """Keep one worker alive, report each that died to the client, and end with the client."""
    load_extensions(sys.argv[4:])
    gc.freeze()
    descriptor, outgoing, incoming = map(int, sys.argv[1:4])
    channel = Channel.of(socket.socket(fileno=descriptor), outgoing, incoming)
    taken = mmap.mmap(-1, _TAKEN.size)
    while True:
        worker, alive = _fork_worker(channel, taken)
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
            channel.send({"ended": os.waitstatus_to_exitcode(status), "taken": _TAKEN.unpack_from(taken)[0]})
        except Ended:
            sys.exit(0)


if __name__ == "__main__":
    supervise()
