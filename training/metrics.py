"""Metrics of a run: one JSON line a step and the same numbers for TensorBoard, in the run's folder.

Lines are kept in segments that begin where a checkpoint ended (``metrics/00000030.jsonl`` begins with step 30). A run that
is resumed begins at such a border and writes from there again, so no step stands twice and none is missing.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from foundation.bucket import Bucket
from training.loop import StepRecord

FOLDER = "metrics"
PROGRESS = "progress.json"
#: Seconds between writes of the open segment and of the progress note.
EVERY_S = 2.0


class MetricLog:
    """Rank 0's pen."""

    def __init__(self, run: Bucket, first_step: int, total: int) -> None:
        self._run, self._total = run, total
        self._segment = first_step
        self._forget_from(first_step)
        self._lines: list[str] = []
        self._written = 0.0
        self._folder = Path(tempfile.mkdtemp(prefix="crossdim-tensorboard-"))
        # Points of steps after the checkpoint that we resumed from are purged from the curves.
        self._board = SummaryWriter(str(self._folder), purge_step=first_step or None, write_to_disk=True)

    def _forget_from(self, step: int) -> None:
        """Remove segments of steps that were done after the checkpoint we resumed from: they are done again."""
        if self._run.exists(FOLDER):
            for stored in self._run.listing(FOLDER):
                if int(Path(stored.path).stem) >= step:
                    self._run.delete(stored.path)

    def add(self, record: StepRecord) -> None:
        """Note a step; now and then also in storage."""
        self._lines.append(json.dumps(asdict(record) | record.rates, sort_keys=True))
        for name in ("loss", "lr", "grad_norm", "wait_s", "step_s"):
            self._board.add_scalar(name, getattr(record, name), record.step)
        for folder, values in (
            ("terms", record.terms),
            ("monitors", record.monitors),
            ("counts", record.counts),
            ("rates", record.rates),
        ):
            for name, value in values.items():
                self._board.add_scalar(f"{folder}/{name}", value, record.step)
        if time.monotonic() - self._written > EVERY_S:
            self.write(record)

    def write(self, record: StepRecord) -> None:
        """Put what is known into storage."""
        self._run.put(f"{FOLDER}/{self._segment:08d}.jsonl", ("\n".join(self._lines) + "\n").encode())
        note = {
            "step": record.step + 1,
            "total": self._total,
            "loss": record.loss,
            "step_s": record.step_s,
            "wait_s": record.wait_s,
        }
        self._run.put(PROGRESS, json.dumps(note).encode())
        self._written = time.monotonic()

    def checkpointed(self, record: StepRecord) -> None:
        """Close the segment at a checkpoint and begin the next."""
        self.write(record)
        self._board.flush()
        for file in self._folder.iterdir():
            self._run.put(f"tensorboard/{file.name}", file.read_bytes())
        self._segment, self._lines = record.step + 1, []

    def close(self) -> None:
        """Let go of the local copy."""
        self._board.close()
        shutil.rmtree(self._folder)


def read_metrics(run: Bucket) -> list[dict[str, Any]]:
    """Every step that a run has logged, in order."""
    segments = run.listing(FOLDER) if run.exists(FOLDER) else []
    return [json.loads(line) for stored in segments for line in run.read(stored.path).decode().splitlines()]
