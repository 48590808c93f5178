"""Bars on a terminal, and lines of standard error above them.

Neither Ctrl-C nor a fork leaves their lock taken, and a standard error that nobody reads any more stops no work.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar
from weakref import WeakSet

from tqdm import tqdm

#: What writing to a stream raises whose reader has left, or that is closed.
STREAM_ERRORS = (OSError, ValueError)


class Bar(tqdm):  # type: ignore[misc]  # tqdm has no annotations
    """A bar of tqdm, with a lock of its own.

    ``tqdm.refresh`` takes tqdm's lock without ``try``: an interrupt or an error while it draws leaves the lock taken, and the
    next thread that draws waits for ever. ``with`` of a lock in C cannot be interrupted between taking it and the block.
    """

    #: No thread of tqdm's that draws bars: those who use them do.
    monitor_interval = 0
    _instances: ClassVar[WeakSet[Any]] = WeakSet()

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar is drawn from. It leaves two columns free, for the ^C that a terminal writes behind it.

        Behind a full line the terminal would begin another one, and the bar would stand there twice.
        """
        found: dict[str, Any] = super().format_dict
        if found["ncols"]:
            found["ncols"] -= len("^C")
        return found

    def refresh(self, nolock: bool = False, lock_args: tuple[Any, ...] | None = None) -> None:
        """Draw the bar.

        Args:
            nolock: of tqdm; the lock is taken all the same, which one thread may do again and again.
            lock_args: of tqdm, for its own lock.
        """
        with self.get_lock():
            if not self.disable:
                self.display()


Bar.set_lock(threading.RLock())


def _after_fork_in_child() -> None:
    """A forked process has no bars, and a lock that no thread of its parent holds."""
    Bar.set_lock(threading.RLock())
    for bar in Bar._instances:
        bar.disable = True


os.register_at_fork(after_in_child=_after_fork_in_child)


def write_above_bars(write: Callable[[], object]) -> None:
    """Call a function that writes lines to standard error: bars are removed before, and drawn again afterwards.

    Args:
        write: the function; that nobody reads what it writes is no error.
    """
    with Bar.get_lock(), contextlib.suppress(*STREAM_ERRORS), Bar.external_write_mode(file=sys.stderr, nolock=True):
        write()


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard error, above a bar if there is one."""
    text = "".join(f"{line}\n" for line in lines)
    write_above_bars(lambda: sys.stderr.write(text))
