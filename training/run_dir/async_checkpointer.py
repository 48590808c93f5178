"""Saver: a rank's part in checkpoints: when one is due, it copies what it holds, and has it written by a thread.

A run whose weights are whole on every rank is saved by rank 0 alone; of a sharded one every rank saves its shards, and rank 0,
which commits, comes last. Training is held for the copy, and until the copy before is written.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree

from crossdim.foundation.bucket import Bucket
from crossdim.training.backbones import encoder_bytes
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.engine.control import HERE, Ask
from crossdim.training.engine.loop import StepRecord
from crossdim.training.engine.train_state import Learner
from crossdim.training.run_dir import checkpoint, sharded
from crossdim.training.run_dir.background_writer import Scribe
from crossdim.training.run_dir.checkpoint import Saving, State
from crossdim.training.run_dir.checkpoint_listing import parts_of
from crossdim.training.run_dir.events import EventLog

ENCODER = "encoder.pt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Title:
    """What stands over everything that a run writes.

    Attributes:
        identity: see ``crossdim.training.launch.worker.identity``.
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


class Saver:
    """Of one rank; rank 0 has the run's ``events``."""

    def __init__(
        self, run: Bucket, title: Title, saving: Saving, learner: Learner, scribe: Scribe, events: EventLog | None
    ) -> None:
        self._run, self._title, self._saving, self._learner, self._scribe = run, title, saving, learner, scribe
        self._events = events
        self._saved_at = time.monotonic()
        self._kept: dict[str, Tensor] = {}
        # A group of its own, because training reduces gradients meanwhile; gloo, because the copies lie in host memory.
        self._group = dist.new_group(backend="gloo") if learner.in_parts and title.world > 1 else None

    def due(self, record: StepRecord, ask: Ask) -> bool:
        """Whether a checkpoint follows this step: alike on all ranks."""
        done, every = record.step + 1, self._saving.every
        due = ask >= Ask.SAVE or done == self._title.steps or (every is not None and done % every == 0)
        if not due and self._saving.every_s and time.monotonic() - self._saved_at >= self._saving.every_s:
            HERE.ask(Ask.SAVE)  # clocks differ; asked, all ranks save after the next step
        return due

    def note(self, record: StepRecord, ask: Ask) -> None:
        """What a rank does after a step that has nothing else to write."""
        self._scribe.check()
        if self.due(record, ask):
            self.save(record.step + 1)

    def save(self, done: int) -> None:
        """Copy the state after ``done`` steps, and let it be written."""
        self._saved_at, began = time.monotonic(), time.perf_counter()
        if self._title.rank and not self._learner.in_parts:
            return
        self._scribe.finish()  # the copy before is being read until then
        state = self._learner.state(done, done * self._title.global_batch, self._title.identity)
        weights = self._learner.encoder_weights() if self._learner.in_parts else {}
        parts = self._learner.tensors() if self._learner.in_parts else {}
        trees, parts = self._copied([state.model, state.optimizer, state.average], parts)
        copy = replace(state, **dict(zip(("model", "optimizer", "average"), trees, strict=True)))
        self._scribe.write(self._put, copy, parts, weights, time.perf_counter() - began)

    def _copied(self, trees: list[Any], parts: Mapping[str, Tensor]) -> tuple[list[Any], dict[str, Tensor]]:
        """Trees of tensors and named tensors in host memory, which is used again by the next copy."""
        leaves, layout = pytree.tree_flatten(trees)
        loose = {f"{number}": leaf for number, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
        self._kept = sharded.snapshot(loose | dict(parts), self._kept)
        copied = [self._kept.get(f"{number}", leaf) for number, leaf in enumerate(leaves)]
        return pytree.tree_unflatten(copied, layout), {name: self._kept[name] for name in parts}

    def _put(self, state: State, parts: dict[str, Tensor], weights: dict[str, Any], held_s: float) -> None:
        began = time.perf_counter()
        hashes = sharded.write(self._run, parts_of(state.step), parts, self._group) if self._learner.in_parts else {}
        if self._events is None:
            return
        size = checkpoint.save(self._run, state, self._saving, hashes) + sum(map(sharded.size_bytes, parts.values()))
        self._run.put(ENCODER, encoder_bytes(weights or state.encoder, self._title.spec))
        written_s = time.perf_counter() - began
        text = f"{size / 1e6:.1f} MB, training held for {held_s:.3f} s, written in {written_s:.2f} s"
        self._events.add("checkpoint", state.step, text, held_s=held_s, written_s=written_s)
        HERE.saved(state.step)
