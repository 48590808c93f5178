"""RereadReporter: samples whose bytes came right only when they were read once more are logged and counted in events."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.events import EventLog

#: Seconds between two events, if a store gives wrong bytes again and again; the log reports each of them.
EVERY_S = 60.0
_LOG = logging.getLogger(__name__)


class RereadReporter:
    """The hook of one rank that writes ``reread`` events.

    Args:
        open_log: opens this rank's events when the first is written: ranks other than 0 seldom have any.
        writer: writes the events.
        steps: of the whole run.
    """

    def __init__(self, open_log: Callable[[], EventLog], writer: BackgroundWriter, steps: int) -> None:
        self._open_log, self._writer, self._steps = open_log, writer, steps
        self._reported: SimpleQueue[str] = SimpleQueue()
        self._next_s = -math.inf

    def report(self, text: str) -> None:
        """Log one sample, from any thread; the next event counts it."""
        _LOG.warning("%s", text)
        self._reported.put(text)

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Write an event, now and then, for what was reported, for this step or ahead of it.

        Args:
            record: of the step.
            request: made of any rank; before a stop or a checkpoint the event is written at once.
        """
        done, now = record.step + 1, time.monotonic()
        if (now >= self._next_s or request or done == self._steps) and (texts := self._take()):
            self._next_s = now + EVERY_S
            self._writer.write(lambda: self._open_log().add("reread", done, texts[-1], samples=len(texts)))

    def _take(self) -> list[str]:
        taken: list[str] = []
        with contextlib.suppress(Empty):
            while True:
                taken.append(self._reported.get_nowait())
        return taken
