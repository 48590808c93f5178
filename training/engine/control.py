"""Requests to a running training: to save a checkpoint, or to save and stop, once its step is done.

Signals make requests, and so does Ray's controller. A request to one rank is followed by all ranks at the end of the same step:
the loop adds it to the sum that ends every step.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from enum import IntEnum
from queue import Empty, SimpleQueue
from types import FrameType

from crossdim.foundation import signals


class Request(IntEnum):
    """What is requested; the greater includes the smaller."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


#: SIGTERM is what a scheduler sends before it takes a machine away, SIGINT is Ctrl-C; SIGUSR1 is for people, and for Slurm's
#: ``--signal``.
SIGNALS = {signal.SIGUSR1: Request.SAVE, signal.SIGTERM: Request.STOP, signal.SIGINT: Request.STOP}


class StopControl:
    """Passes requests from signals and other threads to the thread that trains, and its answers back."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # A signal may come between any two operations of the thread that takes requests; what it adds here is never lost.
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._is_training = False
        self._saved_steps: list[int] = []

    def request(self, what: Request) -> None:
        """Make a request; earlier ones stay."""
        self._requests.put(what)

    def take(self) -> Request:
        """Remove all requests and return the greatest of them."""
        taken = Request.NOTHING
        with contextlib.suppress(Empty):
            while True:
                taken = max(taken, self._requests.get_nowait())
        return taken

    def find_saved_step(self) -> int | None:
        """The newest step that this process has saved in this training; None if there is none, as on all ranks but 0."""
        with self._changed:
            return self._saved_steps[-1] if self._saved_steps else None

    def confirm_saved(self, step: int) -> None:
        """Tell those who wait that the checkpoint of ``step`` is stored."""
        signals.tell_written(written=True)
        with self._changed:
            self._saved_steps.append(step)
            self._changed.notify_all()

    def save(self, timeout_s: float) -> int | None:
        """Request a checkpoint from another thread, and wait until one is stored.

        Returns:
            The step of the checkpoint; None if no thread trains here, or none is stored after ``timeout_s``.
        """
        with self._changed:
            before = len(self._saved_steps)
            self.request(Request.SAVE)
            self._changed.wait_for(lambda: len(self._saved_steps) > before or not self._is_training, timeout_s)
            return self._saved_steps[-1] if len(self._saved_steps) > before else None

    @contextlib.contextmanager
    def follow_requests(self) -> Iterator[None]:
        """Let the calling thread train and follow requests inside the ``with`` block; in the main thread signals make them."""
        with self._changed:
            if self.take() is Request.STOP:  # a stop requested before training still counts; a save does not
                self.request(Request.STOP)
            self._is_training, self._saved_steps = True, []
        try:
            with self.handle_signals():
                yield
        finally:
            with self._changed:
                self._is_training = False
                self._changed.notify_all()

    @contextlib.contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Let signals make requests inside the ``with`` block, if it runs in the main thread: others cannot set handlers."""
        before = self.install_handlers() if threading.current_thread() is threading.main_thread() else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install_handlers(self) -> dict[signal.Signals, signal._HANDLER]:
        """Install handlers of :data:`SIGNALS` that make requests; only in a main thread.

        After the first request to stop, the same signal has its earlier handler again, so that a second one is not held up.

        Returns:
            The handlers that were installed before.
        """
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def handle(number: int, frame: FrameType | None) -> None:
            what = SIGNALS[signal.Signals(number)]
            if what is Request.STOP:
                signals.note(number)
                signal.signal(number, before[signal.Signals(number)])
            self.request(what)

        for number in SIGNALS:
            signal.signal(number, handle)
        return before
