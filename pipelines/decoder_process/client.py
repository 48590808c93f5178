"""The worker's side of the decoder process: one process per worker, started when it is first needed and then reused."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from crossdim.foundation.settings import to_document
from crossdim.pipelines.decoder_process.limits import Limits
from crossdim.pipelines.decoder_process.messages import Channel, Ended, Message, NotAMessage, create_shared_memory
from crossdim.pipelines.extensions import list_extensions
from crossdim.storage_schema.errors import CrossdimError, SampleError

#: What the decoder process inherits: enough to import the same code, and no secret.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONHOME")
#: One thread: a worker is one task of one processor, and stacks and arenas of threads count as address space. Memory of an image
#: is kept for the next one, up to 128 MiB: making its pages anew costs a tenth of decoding it.
_SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
#: The module that runs in it.
SERVER = f"{__package__}.server"
#: Messages to one request: its answer, and ends of workers that did not take it. More means a broken installation.
_MAX_MESSAGES = 5

Result = TypeVar("Result")
Build = Callable[[Message], Result]


class _Failed(Exception):
    """A request without an answer: the refusal, whether the process was new, and whether it must be replaced."""

    def __init__(self, refusal: SampleError | MemoryError, *, fresh: bool, broken: bool = False) -> None:
        super().__init__(refusal)
        self.refusal = refusal
        self.fresh = fresh
        self.broken = broken


class DecoderProcess:
    """A running decoder process."""

    def __init__(self) -> None:
        self.extensions = list_extensions()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        requests, answers = create_shared_memory(), create_shared_memory()
        self._channel = Channel.of(ours, requests, answers)
        self._number = 0  # of the last request
        self._first = 1  # number of the first request that its present worker can have taken
        descriptors = [theirs.fileno(), answers, requests]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", SERVER, *map(str, descriptors), *self.extensions],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=_build_environment(),
                start_new_session=True,  # Ctrl-C goes to the worker, which ends this process by closing the connection
            )
        finally:
            theirs.close()
            os.close(requests)
            os.close(answers)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._channel.connection.close()
        self._process.kill()
        self._process.wait()

    def ask(self, request: dict[str, Any], parts: Sequence[bytes], limits: Limits, build: Build[Result]) -> Result:
        """Send one request and wait for its answer.

        Args:
            request: JSON values; the number of the request is added.
            parts: bytes that the request refers to, such as the files of an input.
            limits: memory and time that the process may take.
            build: makes the result from the answer's message, before its memory is reused.

        Returns:
            What ``build`` made.

        Raises:
            SampleError: if the answer is a refusal by a rule.
            CrossdimError: if the process does not start.
            _Failed: if there is no answer.
        """
        self._number += 1
        try:
            self._channel.send(request | {"number": self._number}, parts)
            return self._answer(limits, build)
        except TimeoutError:
            raise _Failed(_slow_error(limits), fresh=self._fresh, broken=True) from None
        except NotAMessage:
            raise _Failed(_died_error("a broken answer"), fresh=self._fresh, broken=True) from None
        except Ended:
            if self._number == 1:
                raise _not_started_error() from None
            raise _Failed(_died_error("a broken connection"), fresh=False, broken=True) from None

    def _answer(self, limits: Limits, build: Build[Result]) -> Result:
        deadline = time.monotonic() + limits.wall_seconds
        for _ in range(_MAX_MESSAGES):
            self._channel.connection.settimeout(max(deadline - time.monotonic(), 0.001))
            with self._channel.receive() as message:
                answer = message.document
                if "ended" in answer:
                    if answer["taken"] == self._number:
                        failed = _Failed(_build_refusal(answer["ended"], limits), fresh=self._fresh)
                        self._first = self._number + 1
                        raise failed
                    self._first = self._number
                elif "failed" in answer:
                    refusal = _out_of_memory(limits) if answer["failed"] == "memory" else _died_error("a panic of its codec")
                    raise _Failed(refusal, fresh=self._fresh)
                elif "refused" in answer:
                    refused = answer["refused"]
                    files = tuple(int(number) for number in refused["files"])
                    raise SampleError(str(refused["rule"]), str(refused["reason"]), files, str(refused["stage"]))
                else:
                    return build(message)
        raise _not_started_error()

    @property
    def _fresh(self) -> bool:
        """Whether its worker had read no input before the last request."""
        return self._number == self._first


def _build_environment() -> dict[str, str]:
    inherited = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return inherited | _SETTINGS | {"PYTHONPATH": path}


def _not_started_error() -> CrossdimError:
    return CrossdimError("the decoder process does not start; try: python -c 'import crossdim.pipelines.decoder_process.server'")


def _died_error(how: str) -> SampleError:
    return SampleError(
        "decoder_died", f"{how} ended the decoder process while it read this input; it is damaged, export it again"
    )


def _out_of_memory(limits: Limits) -> SampleError:
    return SampleError(
        "decoder_memory",
        f"decoding asks for more than {limits.memory_bytes >> 20:,} MiB, which is ample for what the header promises; "
        "the input is damaged, export it again",
    )


def _slow_error(limits: Limits) -> SampleError:
    return SampleError(
        "decoder_slow",
        f"decoding takes more than {limits.cpu_seconds} s of processor time, which is ample for what the header promises; "
        "the input is damaged, export it again",
    )


def _build_refusal(code: int, limits: Limits) -> SampleError | MemoryError:
    """Build the refusal for an input whose worker ended with this exit code (negative: a signal)."""
    if code == -signal.SIGXCPU:
        return _slow_error(limits)
    if code == -signal.SIGKILL:  # no codec does that to itself
        return MemoryError("a decoder process was killed, as the system does when memory is short")
    return _died_error(signal.Signals(-code).name if code < 0 else f"exit code {code}")


_lock = threading.Lock()
_running: tuple[int, DecoderProcess] | None = None  # with the owner's process id: a forked process must not use it


def discard() -> None:
    """End this process's decoder process, if it has one; the next request starts another."""
    global _running
    if _running is not None and _running[0] == os.getpid():
        _running[1].close()
    _running = None


atexit.register(discard)


def _get_process() -> DecoderProcess:
    global _running
    if _running is not None and _running[0] == os.getpid() and _running[1].extensions != list_extensions():
        discard()  # it has other readers registered than this process
    if _running is None or _running[0] != os.getpid():
        _running = (os.getpid(), DecoderProcess())
    return _running[1]


def ask(document: dict[str, Any], parts: Sequence[bytes], limits: Limits, build: Build[Result]) -> Result:
    """Ask this worker's decoder process, and start one if there is none.

    Whether an input ends the process must depend on that input alone, but an earlier input may have damaged its memory: an input
    that ended a used process is tried once more in a new one.

    Args:
        document: JSON values of the request.
        parts: bytes that the request refers to, such as the files of an input.
        limits: memory and time that the process may take.
        build: makes the result from the answer's message.

    Returns:
        What ``build`` made.

    Raises:
        SampleError: the decoder's refusal, or rule ``decoder_died``, ``decoder_memory`` or ``decoder_slow``.
        MemoryError: if the decoder was ended from outside: this machine has no memory for it.
    """
    request = document | {"lengths": [len(part) for part in parts], "limits": to_document(limits)}
    with _lock:
        while True:
            try:
                return _get_process().ask(request, parts, limits, build)
            except SampleError:
                raise
            except _Failed as failed:
                if failed.broken:
                    discard()
                if failed.fresh:
                    raise failed.refusal from None
            except BaseException:  # interrupted: the answer that is still to come would be taken for the next one
                discard()
                raise
