"""BackgroundWriter: one thread that does writing tasks in order while training goes on."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec

Arguments = ParamSpec("Arguments")


class BackgroundWriter:
    """Runs tasks one after the other in a thread; the error of a task is raised at the next :meth:`write`, or at the end."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="background-writer")
        self._open: deque[Future[object]] = deque()
        self._failed = False

    def write(self, task: Callable[Arguments, object], *arguments: Arguments.args, **named: Arguments.kwargs) -> None:
        """Add a task, which the thread does after the earlier ones.

        Args:
            task: the function to call.
            *arguments: of the task.
            **named: keyword arguments of the task.

        Raises:
            Exception: what an earlier task raised.
        """
        self.check()
        self._open.append(self._thread.submit(self._run, functools.partial(task, *arguments, **named)))

    def _run(self, task: Callable[[], object]) -> None:
        """Run a task unless one failed before: later tasks may depend on earlier ones."""
        if not self._failed:
            self._failed = True
            task()
            self._failed = False

    @property
    def idle(self) -> bool:
        """Whether all tasks are done."""
        return all(task.done() for task in self._open)

    def check(self) -> None:
        """Raise what a task raised so far."""
        while self._open and self._open[0].done():
            self._open.popleft().result()

    def finish(self) -> None:
        """Wait until all tasks are done, and raise what one of them raised."""
        while self._open:
            self._open.popleft().result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)
