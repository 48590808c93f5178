"""TrackerThread: a tracker in a thread of its own, whose faults never reach the training."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from crossdim.foundation.location import hide_secrets
from crossdim.training.trackers.base import Tracker

_LOG = logging.getLogger(__name__)
#: Seconds that the end of a run waits for what is still to be sent.
FINISH_S = 60.0

Task = Callable[[Tracker], None]


class TrackerThread:
    """Does tasks with a tracker, in order. After the first fault there is one warning, and nothing more is done.

    Args:
        title: of the tracker.
        open_tracker: opens it; called in the thread.
        remedy: what to do after a fault, for the warning.
    """

    def __init__(self, title: str, open_tracker: Callable[[], Tracker], remedy: str) -> None:
        self._title, self._open, self._remedy = title, open_tracker, remedy
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        # A daemon, because a server that does not answer must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name=f"tracker {title}", daemon=True)
        self._thread.start()

    def send(self, task: Task) -> None:
        """Have a task done; nothing happens after a fault."""
        if self._thread.is_alive():
            self._tasks.put(task)

    def finish(self, wait_s: float = FINISH_S) -> None:
        """Wait for the tasks, and say so if they take too long."""
        self._tasks.put(None)
        self._thread.join(wait_s)
        if self._thread.is_alive():
            self._warn(f"it has not taken everything within {wait_s:.0f} s")

    def _work(self) -> None:
        try:
            tracker = self._open()
            while task := self._tasks.get():
                task(tracker)
        except Exception as error:  # trackers promise no class of errors, and no run ends because of one
            self._warn(f"{type(error).__name__}: {' '.join(str(error).split())}")

    def _warn(self, reason: str) -> None:
        told = f"{self._title} gets nothing more of this run, which goes on: {hide_secrets(reason)}. {self._remedy}"
        _LOG.warning("%s", told)
