"""Asks: what this process is asked to do once its step is done: to save, or to save and stop.

Signals ask, and so does whoever watches over the workers. What one rank is asked all ranks do, at the end of the same step:
the loop puts it into the sum that ends a step anyway.
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


class Ask(IntEnum):
    """What is asked; the greater holds the smaller."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


#: SIGTERM is what a scheduler sends before it takes a machine away, SIGINT is Ctrl-C; SIGUSR1 is for people, and for Slurm's
#: ``--signal``.
SIGNALS = {signal.SIGUSR1: Ask.SAVE, signal.SIGTERM: Ask.STOP, signal.SIGINT: Ask.STOP}


class Asks:
    """One question box: threads and signals ask, the training thread takes and answers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        # A signal may come between any two operations of the thread that takes; what it puts here meanwhile is never lost.
        self._asked: SimpleQueue[Ask] = SimpleQueue()
        self._training = False
        self._saves: list[int] = []

    def ask(self, what: Ask) -> None:
        """Ask; what is asked already stays asked."""
        self._asked.put(what)

    def take(self) -> Ask:
        """What is asked; from now on nothing is."""
        taken = Ask.NOTHING
        with contextlib.suppress(Empty):
            while True:
                taken = max(taken, self._asked.get_nowait())
        return taken

    def saved(self, step: int) -> None:
        """Tell those who wait that a checkpoint of ``step`` is safe."""
        signals.tell_written(written=True)
        with self._changed:
            self._saves.append(step)
            self._changed.notify_all()

    def save(self, patience_s: float) -> int | None:
        """Ask for a checkpoint, from another thread, and wait until one is safe.

        Returns:
            The steps that are saved; None if nobody trains here, or there is no answer after ``patience_s``.
        """
        with self._changed:
            before = len(self._saves)
            self.ask(Ask.SAVE)
            self._changed.wait_for(lambda: len(self._saves) > before or not self._training, patience_s)
            return self._saves[-1] if len(self._saves) > before else None

    @contextlib.contextmanager
    def answered(self) -> Iterator[None]:
        """While the calling thread trains. In a main thread signals are heard meanwhile."""
        with self._changed:
            if self.take() is Ask.STOP:  # who trains later must stop all the same; a save was asked of nobody
                self.ask(Ask.STOP)
            self._training, self._saves = True, []
        try:
            with self.heard():
                yield
        finally:
            with self._changed:
                self._training = False
                self._changed.notify_all()

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Hear signals meanwhile, if the calling thread is the main one: only that may."""
        before = self.hear() if threading.current_thread() is threading.main_thread() else {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hear(self) -> dict[signal.Signals, signal._HANDLER]:
        """Hear signals from now on, in a main thread; what was done with them before. The second of a kind is not held up."""
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def heard(number: int, frame: FrameType | None) -> None:
            what = SIGNALS[signal.Signals(number)]
            if what is Ask.STOP:
                signals.note(number)
                signal.signal(number, before[signal.Signals(number)])
            self.ask(what)

        for number in SIGNALS:
            signal.signal(number, heard)
        return before


#: Of this process: signals come to a process, too.
HERE = Asks()


def save_here(patience_s: float) -> int | None:
    """:meth:`Asks.save` of the process that it is called in: a function, so that it can be sent to a worker."""
    return HERE.save(patience_s)
