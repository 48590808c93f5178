"""Pen: what rank 0 writes into a run's folder while it trains: metrics, events, checkpoints, the encoder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from foundation.bucket import Bucket
from storage_schema.errors import CrossdimError
from training import checkpoint
from training.asks import HERE, Ask
from training.backbones import encoder_bytes
from training.backbones.base import EncoderSpec
from training.checkpoint import Saving, State
from training.learner import Learner
from training.loop import StepRecord
from training.metrics import EventLog, MetricLog
from training.scribe import Scribe
from training.snapshot import HostCopy

ENCODER = "encoder.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Title:
    """What stands over everything that a run writes.

    Attributes:
        identity: see ``training.worker.identity``.
        spec: of the encoder.
        steps: of the whole run.
        global_batch: samples of a step.
        world: ranks of this start.
    """

    identity: dict[str, Any]
    spec: EncoderSpec
    steps: int
    global_batch: int
    world: int


class Pen:
    """Rank 0's. Writing is a thread's; training is held only to copy what changes. Its context is the run's: its end is noted."""

    def __init__(self, run: Bucket, title: Title, saving: Saving, learner: Learner, done: int) -> None:
        self._run, self._title, self._saving, self._learner = run, title, saving, learner
        self._done, self._saved_at = done, time.monotonic()
        self._scribe, self._copy = Scribe(), HostCopy()
        self._events = EventLog(run, title.world)
        self._log = MetricLog(run, done, title.steps, self._scribe)

    def begin(self, passed_over: Sequence[str]) -> Self:
        """Note the start, and checkpoints that were not whole."""
        for text in passed_over:
            self._scribe.write(self._events.add, "passed-over", self._done, text)
        self._scribe.write(self._events.add, "resume" if self._done else "start", self._done)
        return self

    def note(self, record: StepRecord, ask: Ask) -> None:
        """After every step: log it; where it is due: save."""
        self._scribe.check()
        self._log.add(record)
        self._done = record.step + 1
        if self._due(ask):
            self._save(record)
        elif self._saving.every_s and time.monotonic() - self._saved_at >= self._saving.every_s:
            HERE.ask(Ask.SAVE)  # time is rank 0's alone; asked, all ranks save after the next step

    def _due(self, ask: Ask) -> bool:
        every = self._saving.every
        return ask >= Ask.SAVE or self._done == self._title.steps or (every is not None and self._done % every == 0)

    def _save(self, record: StepRecord) -> None:
        """Copy the state, which holds training, and let it be written."""
        began = time.perf_counter()
        self._scribe.finish()  # the copy before is being read until then
        state = self._learner.state(self._done, self._done * self._title.global_batch, self._title.identity)
        copied = self._copy({"model": state.model, "optimizer": state.optimizer, "average": state.average})
        self._log.checkpointed(record)
        self._scribe.write(self._put, replace(state, **copied), time.perf_counter() - began)
        self._saved_at = time.monotonic()

    def _put(self, state: State, held_s: float) -> None:
        began = time.perf_counter()
        size = checkpoint.save(self._run, state, self._saving)
        self._run.put(ENCODER, encoder_bytes(state.encoder, self._title.spec))
        text = f"{size / 1e6:.1f} MB, training held for {held_s:.3f} s, written in {time.perf_counter() - began:.2f} s"
        self._events.add("checkpoint", state.step, text)
        HERE.saved(state.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._scribe.finish()
                self._events.add("end" if self._done == self._title.steps else "stopped", self._done)
            else:
                with contextlib.suppress(CrossdimError):  # a store that fails may be the error itself, which must be heard
                    self._scribe.finish()
                with contextlib.suppress(CrossdimError):
                    self._events.add("failed", self._done, f"{type(error).__name__}: {error}")
        finally:
            self._scribe.close()
            self._log.close()
