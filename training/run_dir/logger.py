"""Pen: what rank 0 writes into a run's folder while it trains, beside checkpoints: numbers, and what happened."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CrossdimError
from crossdim.training.engine.control import Ask
from crossdim.training.engine.loop import StepRecord
from crossdim.training.run_dir.async_checkpointer import Saver
from crossdim.training.run_dir.background_writer import Scribe
from crossdim.training.run_dir.events import EventLog, begun, events
from crossdim.training.run_dir.metrics import MetricLog, damage


class Pen:
    """Rank 0's. Writing is a thread's. Its context is the run's: how it ends is noted."""

    def __init__(self, run: Bucket, saver: Saver, scribe: Scribe, diary: EventLog, done: int, steps: int) -> None:
        self._run, self._saver, self._scribe, self._events, self._done, self._steps = run, saver, scribe, diary, done, steps
        self._log = MetricLog(run, done, steps, scribe)

    def begin(self, passed_over: Sequence[str]) -> Self:
        """Note the start, and what of the run's folder was not whole."""
        for text in passed_over:
            self._scribe.write(self._events.add, "passed-over", self._done, text)
        if self._log.damaged:
            self._scribe.write(self._events.add, "damaged", self._done, damage(self._run, self._log.damaged))
        self._scribe.write(self._start)
        return self

    def _start(self) -> None:
        """A start knows how many steps were made in vain, by all starts before it together."""
        again = self._log.done_again
        in_vain = again + begun(self._run, events(self._run)).get("in_vain", 0)
        text = f"{again} step{' is' if again == 1 else 's are'} done again" if again else ""
        self._events.add("resume" if self._done else "start", self._done, text, in_vain=in_vain)

    def note(self, record: StepRecord, ask: Ask) -> None:
        """After every step: log it; where it is due: save."""
        self._scribe.check()
        self._log.add(record)
        self._done = record.step + 1
        if self._saver.due(record, ask):
            self._scribe.write(self._events.fence)
            self._log.checkpointed(record)
            self._saver.save(self._done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._end()
        else:
            self._failed(error)

    def _end(self) -> None:
        try:
            self._scribe.finish()
        except CrossdimError as error:  # of the last checkpoint: no step came after it to hear of it
            self._failed(error)
            raise
        self._events.add("end" if self._done == self._steps else "stopped", self._done)

    def _failed(self, error: BaseException) -> None:
        with contextlib.suppress(CrossdimError):  # a store that fails may be the error itself, which must be heard
            self._scribe.write(self._events.fence)
            self._log.tell()
            self._scribe.finish()
        with contextlib.suppress(CrossdimError):
            self._events.fence()
            self._events.add("failed", self._done, f"{type(error).__name__}: {error}")
