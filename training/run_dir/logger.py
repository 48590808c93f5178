"""RunLogger: what rank 0 writes into a run's folder while it trains, beside checkpoints: metrics and events."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import CrossdimError
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.events import EventLog, list_events, read_newest_start
from crossdim.training.run_dir.metric_log import MetricLog
from crossdim.training.run_dir.metrics import describe_damage


class RunLogger:
    """The hook of rank 0 that logs each step; as a context manager it writes events of the start and the end of the run.

    Args:
        run: folder of the run.
        log: events of the run.
        writer: writes what is logged.
        done: steps done before this start.
        steps: of the whole run.
        skipped: newer checkpoints that this start did not take, with the reasons.
        config: document of the configuration, which the first start tells TensorBoard.
    """

    def __init__(
        self,
        run: Bucket,
        log: EventLog,
        writer: BackgroundWriter,
        done: int,
        steps: int,
        skipped: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._run, self._events, self._writer, self._done, self._steps, self._skipped = run, log, writer, done, steps, skipped
        self._metrics = MetricLog(run, done, steps, writer)
        if config and not done:
            self._metrics.describe(config)

    def __enter__(self) -> Self:
        for text in self._skipped:
            self._writer.write(self._events.add, "passed-over", self._done, text)
        if self._metrics.damaged:
            self._writer.write(self._events.add, "damaged", self._done, describe_damage(self._run, self._metrics.damaged))
        self._writer.write(self._write_start)
        return self

    def _write_start(self) -> None:
        """Write the event of the start, with the steps that were made in vain by all starts before it together."""
        again = self._metrics.done_again
        in_vain = again + read_newest_start(self._run, list_events(self._run)).get("in_vain", 0)
        text = f"{again} step{' is' if again == 1 else 's are'} done again" if again else ""
        self._events.add("resume" if self._done else "start", self._done, text, in_vain=in_vain)

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Log a step.

        Args:
            record: of the step.
            request: not used.

        Raises:
            StorageError: if something could not be written before.
        """
        self._writer.check()
        self._metrics.add(record)
        self._done = record.step + 1

    def before_checkpoint(self, record: StepRecord) -> None:
        """Check that no newer start of the run has taken over, and write the steps that the checkpoint will contain."""
        self._writer.write(self._events.fence)
        self._metrics.close_segment(record)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._events.add("end" if self._done == self._steps else "stopped", self._done)
        else:
            self._write_failure(error)

    def _write_failure(self, error: BaseException) -> None:
        with contextlib.suppress(CrossdimError):  # a store that fails may be the error itself, which must be heard
            self._writer.write(self._events.fence)
            self._metrics.flush()
            self._writer.finish()
        with contextlib.suppress(CrossdimError):
            self._events.fence()
            self._events.add("failed", self._done, f"{type(error).__name__}: {error}")
