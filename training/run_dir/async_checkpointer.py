"""AsyncCheckpointer: when a checkpoint is due, copies this rank's part of it, and has the copy written by a thread.

A run whose weights are whole on every rank is saved by rank 0 alone; of a sharded one every rank saves its shards, and rank 0,
which completes the checkpoint, comes last. Training is held for the copy, and until the copy before is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from crossdim.foundation.bucket import Bucket
from crossdim.training.backbones import serialise_encoder
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.engine.control import Request, StopControl
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.engine.train_state import TrainState
from crossdim.training.run_dir import checkpoint, sharded
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.checkpoint import Saving
from crossdim.training.run_dir.checkpoint_state import CheckpointState
from crossdim.training.run_dir.events import EventLog
from crossdim.training.run_dir.layout import ENCODER, parts_path
from crossdim.training.run_dir.resume import capture


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHeader:
    """What is the same in everything that a run writes.

    Attributes:
        identity: see ``crossdim.training.launch.worker.build_identity``.
        spec: of the encoder.
        steps: of the whole run.
        global_batch: samples of a step.
        rank: who writes.
        world: ranks of this start.
    """

    identity: dict[str, Any]
    spec: EncoderSpec
    steps: int
    global_batch: int
    rank: int
    world: int


class AsyncCheckpointer:
    """The hook of one rank that saves checkpoints.

    Args:
        run: folder of the run.
        header: of the run.
        saving: when checkpoints are due and which of them stay.
        state: what is saved.
        writer: writes the copies.
        control: is told of checkpoints that are stored, and requested to save when time makes one due.
        events: of the run; None on ranks other than 0.
        before_save: called with the record of the step before a copy is made.
    """

    def __init__(
        self,
        run: Bucket,
        header: RunHeader,
        saving: Saving,
        state: TrainState,
        writer: BackgroundWriter,
        control: StopControl,
        events: EventLog | None,
        before_save: Callable[[StepRecord], None] = lambda record: None,
    ) -> None:
        self._run, self._header, self._saving, self._state, self._writer = run, header, saving, state, writer
        self._control, self._events, self._before_save = control, events, before_save
        self._saved_at = time.monotonic()
        self._copies: dict[str, Tensor] = {}
        # A group of its own, because training reduces gradients meanwhile; gloo, because the copies lie in host memory.
        self._group = dist.new_group(backend="gloo") if state.sharded and header.world > 1 else None

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Save if a checkpoint is due.

        Args:
            record: of the step.
            request: made of any rank.

        Raises:
            StorageError: if an earlier copy could not be written.
        """
        self._writer.check()
        if self.is_due(record, request):
            self._before_save(record)
            self.save(record.step + 1)

    def is_due(self, record: StepRecord, request: Request) -> bool:
        """Whether a checkpoint follows this step; the same on all ranks.

        When time makes one due, all ranks are requested to save after the next step, because their clocks differ.

        Args:
            record: of the step.
            request: the highest that any rank has received.

        Returns:
            True after the last step, after every ``every`` steps, after the steps ``at``, and if a save or stop was requested.
        """
        done, every = record.step + 1, self._saving.every
        due = request >= Request.SAVE or done == self._header.steps or (every is not None and done % every == 0)
        due = due or done in self._saving.at
        if not due and self._saving.every_s and time.monotonic() - self._saved_at >= self._saving.every_s:
            self._control.request(Request.SAVE)
        return due

    def save(self, done: int) -> None:
        """Copy the state after ``done`` steps, and have it written."""
        self._saved_at, began = time.monotonic(), time.perf_counter()
        sharded_run = self._state.sharded
        if self._header.rank and not sharded_run:
            return
        self._writer.finish()  # the copy before is being read until then
        state = capture(self._state, done, done * self._header.global_batch, self._header.identity)
        weights = self._state.gather_encoder() if sharded_run else {}
        parts = self._state.tensors() if sharded_run else {}
        trees, parts = self._copy([state.model, state.optimizer, state.average], parts)
        copy = replace(state, **dict(zip(("model", "optimizer", "average"), trees, strict=True)))
        self._writer.write(self._write, copy, parts, weights, time.perf_counter() - began)

    def _copy(self, trees: list[Any], parts: Mapping[str, Tensor]) -> tuple[list[Any], dict[str, Tensor]]:
        """Copy trees of tensors and named tensors to host memory, which is used again by the next copy."""
        leaves, layout = pytree.tree_flatten(trees)
        loose = {f"{number}": leaf for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
        self._copies = sharded.snapshot(loose | dict(parts), self._copies)
        copied = [self._copies.get(f"{number}", leaf) for number, leaf in enumerate(leaves)]
        return pytree.tree_unflatten(copied, layout), {name: self._copies[name] for name in parts}

    def _write(self, state: CheckpointState, parts: dict[str, Tensor], weights: dict[str, Any], held_s: float) -> None:
        """Write a copy; called in the thread."""
        began = time.perf_counter()
        hashes = sharded.write(self._run, parts_path(state.step), parts, self._group) if self._state.sharded else {}
        if self._events is None:
            return
        size = checkpoint.save(self._run, state, self._saving, hashes) + sum(map(sharded.size_bytes, parts.values()))
        self._run.put(ENCODER, serialise_encoder(weights or state.encoder, self._header.spec))
        written_s = time.perf_counter() - began
        text = f"{size / 1e6:.1f} MB, training held for {held_s:.3f} s, written in {written_s:.2f} s"
        self._events.add("checkpoint", state.step, text, held_s=held_s, written_s=written_s)
        self._control.confirm_saved(state.step)
