"""Watch whether the Ray processes that this one needs still answer.

Without them Ray ends this process with the exit code of a usage error and no message, or lets it wait for a minute or longer.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from crossdim.foundation import signals

EVERY_S = 0.3
CONNECT_S = 2.0
#: Exit code of work that failed.
FAILED = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A process of Ray: its name, its HOST:PORT, and for how many seconds it may be silent before it counts as lost."""

    name: str
    address: str
    patience_s: float

    def answers(self) -> bool:
        """Whether a process listens there."""
        host, port = self.address.rsplit(":", 1)
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def watch(endpoints: Sequence[Endpoint], end: Callable[[], None]) -> Iterator[None]:
    """Inside the ``with`` block, end this process with a message and exit code 2 if an endpoint is lost.

    Args:
        endpoints: the processes that are needed, every one of them.
        end: called before this process ends, to stop processes that would be left behind.

    Yields:
        Nothing; a thread checks every 0.3 s until the block ends.

    Raises:
        Exception: whatever the block raises, if all endpoints still answer.
    """
    stop = threading.Event()
    heard = dict.fromkeys(endpoints, time.monotonic())

    def look() -> None:
        for endpoint in endpoints:
            if endpoint.answers():
                heard[endpoint] = time.monotonic()
            elif (silence := time.monotonic() - heard[endpoint]) > max(endpoint.patience_s, EVERY_S):
                _end_process(endpoint, silence, end)

    def again() -> None:
        while not stop.wait(EVERY_S):
            look()

    thread = threading.Thread(target=again, name="ray-watch", daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        if not all(endpoint.answers() for endpoint in endpoints):
            time.sleep(2 * EVERY_S)  # caused by the loss; Ray could end the process before the thread reports it
            look()
        raise
    finally:
        stop.set()
        thread.join()


def _end_process(endpoint: Endpoint, silence_s: float, end: Callable[[], None]) -> None:
    end()  # first: while Ray's processes end, its thread prints the last lines of their logs
    if stop := signals.received():  # a signal to all processes reaches Ray's, too
        code = signals.say(stop, after="\n")
    else:
        remedy = "see whether memory ran out, and start Ray again if it is gone; the same command goes on from here"
        text = f"Ray was lost: {endpoint.name} at {endpoint.address} has not answered for {silence_s:.1f} s; {remedy}"
        with contextlib.suppress(OSError):
            os.write(2, f"\nerror: {text}\n".encode())
        code = FAILED
    os._exit(code)  # the main thread waits for Ray, and would wait for it to shut down
