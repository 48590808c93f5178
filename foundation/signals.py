"""Signals: the first Ctrl-C (SIGINT) or SIGTERM ends a verb with one line; a second one ends the process at once.

The first raises ``KeyboardInterrupt`` in the main thread, or asks a running training to save and stop. A thread watches for the
second, because the main thread may be inside a call that does not return.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from crossdim.foundation.processes import find_descendants, kill

SIGINT = signal.SIGINT
#: Exit codes of a process that was stopped. SIGTERM counts as work that failed.
EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 2}
#: How the line about a stop begins: if a sentence of the verb follows, and if none does.
LINES = {signal.SIGINT: ("interrupted; ", "interrupted"), signal.SIGTERM: ("error: ", "error: stopped by SIGTERM")}
#: How it ends for verbs that can be repeated: whether the same command has something to continue from.
GOES_ON, NOTHING = "the same command goes on from here", "nothing was written yet"
#: Signals this close together count as one: ``timeout`` and job managers signal a process and then its group.
TOGETHER_S = 0.3
#: A stop that takes longer prints a line: work may be waiting for a store that does not answer.
SLOW_S = 15.0


@dataclass(kw_only=True, slots=True)
class _State:
    """The signals that this process received, and whether it may be interrupted now."""

    listening: bool = False
    first: signal.Signals | None = None
    first_at: float = 0.0
    held: int = 0
    kept: bool = False
    said: bool = False
    outcome: str = GOES_ON
    code: int | None = None


_state = _State()


def received() -> signal.Signals | None:
    """The stop signal that came first, if one came while this process listened; otherwise None."""
    return _state.first if _state.listening else None


def tell_written(*, written: bool) -> None:
    """State whether the verb has written anything that the same command can continue from; the line about a stop says so."""
    _state.outcome = GOES_ON if written else NOTHING


def tell_outcome(sentence: str) -> None:
    """State what the verb has done so far, for the line about a stop; an empty sentence if there is nothing to say."""
    _state.outcome = sentence


def say(stop: signal.Signals, sentence: str | None = None, *, after: str = "") -> int:
    """Print the line about a stop, once in a process.

    Args:
        stop: the signal.
        sentence: what was saved; without it the line ends with the outcome that the verb has told.
        after: printed before the line, such as a newline after a progress bar.

    Returns:
        The exit code for this signal.
    """
    if not _state.said:
        _state.said = True
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            sys.stderr.write(after + _format_line(stop, sentence))
            sys.stderr.flush()
    return EXIT_CODES[stop]


def _format_line(stop: signal.Signals, sentence: str | None = None) -> str:
    line, alone = LINES[stop]
    if sentence:
        return f"{line}{sentence}\n"
    return f"{alone}; {_state.outcome}\n" if _state.outcome else f"{alone}\n"


def note(number: int) -> bool:
    """Remember a stop signal. Returns whether it is the first."""
    if _state.first is not None:
        return False
    _state.first, _state.first_at = signal.Signals(number), time.monotonic()
    return True


@contextlib.contextmanager
def listen() -> Iterator[None]:
    """Handle stop signals inside a ``with`` block of the main thread, as the module says.

    After a signal came, the handlers stay.
    """
    global _state
    if _state.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    _state = _State(listening=True)
    before = {number: signal.signal(number, _handle) for number in EXIT_CODES}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()
    try:
        yield
    finally:
        _state.listening = False
        if _state.first is None:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(writing)  # ends the thread


class _Fork(threading.local):
    """The signals that a thread had blocked before it forked, while it forks."""

    blocked: set[int] | None = None


_fork = _Fork()


def _before_fork() -> None:
    """Let stop signals wait: one that comes to the child before its handlers are its own would be taken for its parent's."""
    if _state.listening:
        _fork.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, EXIT_CODES)


def _after_fork() -> None:
    if _fork.blocked is not None:
        blocked, _fork.blocked = _fork.blocked, None
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _after_fork_in_child() -> None:
    """In a forked process: its signals are its own, not its parent's.

    A SIGINT that came to it meanwhile ends it when signals are let through again, by the system's default action: Python's would
    raise an error inside this function, which is printed and dropped.
    """
    was_listening = _state.listening
    if was_listening:
        signal.set_wakeup_fd(-1)
        for number in EXIT_CODES:
            signal.signal(number, signal.SIG_DFL)
        _state.listening = False
    _after_fork()
    if was_listening:
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


@contextlib.contextmanager
def hold() -> Iterator[None]:
    """Delay the first stop signal until the ``with`` block ends, for work that must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
        if not _state.held and _state.kept:
            _state.kept = False
            raise KeyboardInterrupt


@contextlib.contextmanager
def keep_handlers() -> Iterator[None]:
    """Restore the handlers of stop signals after the ``with`` block: Ray's own end the process without a message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in EXIT_CODES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raise ``KeyboardInterrupt`` again if a stop signal came and work continues all the same.

    The first ``KeyboardInterrupt`` is lost where it is raised inside a callback from C++, whose errors Python only prints or
    drops (seen in 1 of 50 starts of Ray Data). Loops over results of such libraries call this at each result.

    Raises:
        KeyboardInterrupt: if a stop signal was received in the main thread's verb.
    """
    if received() and not _state.held and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def interrupt() -> None:
    """Interrupt the main thread, from another one, for a stop signal that was noted and that nothing else will handle."""
    _state.kept = True
    _thread.interrupt_main(_state.first or signal.SIGINT)


def _handle(number: int, frame: FrameType | None) -> None:
    first = note(number)
    if _state.held:
        _state.kept = _state.kept or first
    elif first or _state.kept:
        _state.kept = False
        raise KeyboardInterrupt


def _watch(reading: int) -> None:
    """Wait for the second stop signal, which ends the process whatever it is doing."""
    first_at, announced = 0.0, False
    while True:
        ready, _, _ = select.select([reading], [], [], SLOW_S if first_at and not announced else None)
        if not ready:
            announced = True
            _write("\nstopping; the same signal again stops at once\n")
            continue
        numbers = os.read(reading, 64)
        if not numbers:
            os.close(reading)
            return
        stops = [signal.Signals(number) for number in numbers if number in EXIT_CODES]
        if stops and not first_at:
            first_at = time.monotonic()
        elif stops and time.monotonic() - first_at > TOGETHER_S:
            _end_at_once(stops[-1])


def _write(text: str) -> None:
    """Write to standard error without Python's own stream, whose lock the main thread may hold."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def _end_at_once(stop: signal.Signals) -> NoReturn:
    """End this process and everything that it started."""
    if not _state.said:
        _write("\n" + _format_line(stop))
    kill(find_descendants(os.getpid()))
    os._exit(EXIT_CODES[_state.first if _state.said and _state.first else stop])


def run_process(main: Callable[[], int]) -> int:
    """Run the main function of a process, and keep its exit code, or that of a stop whose line is printed.

    While Python shuts down, signals have their default actions again, and native threads that release a Python object abort the
    process: either would end it with another code. So it ends at the start of the shutdown, after all other exit handlers.

    Args:
        main: returns the exit code.

    Returns:
        The exit code.
    """
    atexit.register(_exit_as_told, os.getpid())
    try:
        _state.code = code = main()
    except SystemExit as end:  # of a parser; a stream that cannot be flushed would give another code
        _state.code = end.code if isinstance(end.code, int) else None
        raise
    return code


def _exit_as_told(pid: int) -> None:
    code = EXIT_CODES[_state.first] if _state.first and _state.said else _state.code
    if code is not None and os.getpid() == pid:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream that was closed before the start is None
                stream.flush()
        os._exit(code)
