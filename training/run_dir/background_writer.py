"""Scribe: one thread that writes what it is handed, in order, while training goes on."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


class Scribe:
    """Nothing is lost silently: what went wrong in one task is raised when the next is handed over, or at the end."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scribe")
        self._open: deque[Future[object]] = deque()
        self._failed = False

    def write(self, task: Callable[Arguments, object], *arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        """Hand a task over."""
        self.check()
        self._open.append(self._thread.submit(self._do, functools.partial(task, *arguments, **named)))

    def _do(self, task: Callable[[], object]) -> None:
        """Later tasks may stand on earlier ones: after one that failed none is done."""
        if not self._failed:
            self._failed = True
            task()
            self._failed = False

    @property
    def idle(self) -> bool:
        """Whether all that was handed over is written."""
        return all(task.done() for task in self._open)

    def check(self) -> None:
        """Raise what went wrong so far."""
        while self._open and self._open[0].done():
            self._open.popleft().result()

    def finish(self) -> None:
        """Wait until all is written."""
        while self._open:
            self._open.popleft().result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)
