"""Work that a thread does beside a ``with`` block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeat_in_thread(name: str, every_s: float, work: Callable[[], None]) -> Iterator[None]:
    """Call a function again and again in a thread, inside a ``with`` block.

    Args:
        name: of the thread.
        every_s: seconds between calls.
        work: the function; it must be thread-safe.

    Yields:
        Nothing; the thread ends with the block, after a call that is under way.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(every_s):
            work()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
