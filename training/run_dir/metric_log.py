"""Writes the metrics of a run: one record for each step, the same numbers for TensorBoard, and how far the run is.

See ``metrics`` for the format. Segments begin where a checkpoint ended, so that a resumed run goes on at such a border.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import UnreachableError
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir.background_writer import BackgroundWriter
from crossdim.training.run_dir.layout import METRICS, PROGRESS, TENSORBOARD, metrics_path, tensorboard_path
from crossdim.training.run_dir.metrics import ENCODER_RANK, list_figures, list_segments, parse_step, read_recent, step_of
from crossdim.training.run_dir.records import read_lines, record_text
from crossdim.training.run_dir.settings_table import list_values
from crossdim.training.run_dir.tensorboard import TensorBoardWriter

#: Seconds between writes of the open segment and of the progress note.
EVERY_S = 2.0
#: Newest steps whose mean times are in the progress note: those of one step say little.
PROGRESS_STEPS = 100


class MetricLog:
    """Logs steps of rank 0, and removes what was logged of steps that are done again.

    Args:
        run: folder of the run.
        first_step: the step that this start begins with.
        total: steps of the whole run.
        writer: writes the segments, in order with what else it writes.
    """

    def __init__(self, run: Bucket, first_step: int, total: int, writer: BackgroundWriter) -> None:
        self._run, self._total, self._writer = run, total, writer
        self._segment = first_step
        #: Steps of the segment that is gone on from whose lines are damaged or missing.
        self.damaged = 0
        #: Steps that were logged before this start, and are done again: at least so many were made in vain.
        self.done_again = self._remove_from(first_step)
        self._lines: list[str] = []
        self._look: dict[str, float] = {}
        self._recent: deque[StepRecord] = deque(maxlen=PROGRESS_STEPS)
        self._written = 0.0
        self._tensorboard = TensorBoardWriter(first_step)

    def _remove_from(self, step: int) -> int:
        """Remove what was logged of steps after the checkpoint that is resumed from; returns how many they were."""
        logged = [record["step"] for record in read_recent(self._run, 1)]
        logs = list_segments(self._run, METRICS)
        after = [path for first, path in logs if first >= step]
        for path in (*after, *(path for first, path in list_segments(self._run, TENSORBOARD) if first >= step)):
            self._run.delete(path)
        # A checkpoint that a lost worker still wrote may lie inside a segment of the next start.
        for first, path in logs[: len(logs) - len(after)][-1:]:
            lines = read_lines(self._run, path)
            kept = [line for number, line in enumerate(lines, first) if step_of(line, number) < step]
            self.damaged = max(0, step - first - sum(parse_step(line) is not None for line in kept))
            if kept != lines:
                self._run.put(path, "".join(f"{line}\n" for line in kept).encode())
        return max(0, logged[-1] + 1 - step) if logged else 0

    def describe(self, config: Mapping[str, Any]) -> None:
        """Add the configuration, as text and as a table, to what TensorBoard shows.

        Args:
            config: document of the run's configuration.
        """
        lines = json.dumps(config, indent=2, sort_keys=True).splitlines()
        self._tensorboard.add_text(self._segment, "configuration", "\n".join(f"    {line}" for line in lines))
        self._tensorboard.add_settings(list_values(config))

    def add(self, record: StepRecord) -> None:
        """Add a step; now and then have the open segment written."""
        self._newest = record
        self._recent.append(record)
        if ranks := [value for name, value in record.monitors.items() if name.endswith(ENCODER_RANK)]:
            self._look = {"rank_me": min(ranks)}
        members = asdict(record) | record.rates
        self._lines.append(record_text(members | {"time_s": time.time()}))
        self._tensorboard.add(record.step, list_figures(members))
        if time.monotonic() - self._written > EVERY_S and self._writer.idle:
            # What cannot be put now is put two seconds later, with more; only a checkpoint waits for the store.
            self._write(record, self._try_put)

    def flush(self) -> None:
        """Have the open segment written, if it has steps."""
        if self._lines:
            self._write(self._newest, self._run.put)

    def _try_put(self, path: str, data: bytes) -> None:
        with contextlib.suppress(UnreachableError):
            self._run.with_patience(0).put(path, data)

    def _write(self, record: StepRecord, put: Callable[[str, bytes], None]) -> None:
        """Have the open segment and the progress note written, each with ``put``."""
        segment = metrics_path(self._segment)
        self._writer.write(put, segment, ("\n".join(self._lines) + "\n").encode())
        note = {
            "step": record.step + 1,
            "total": self._total,
            "loss": record.loss,
            "step_s": fmean(one.step_s for one in self._recent),
            "wait_s": fmean(one.wait_s for one in self._recent),
            "time_s": time.time(),
            **self._look,
        }
        self._writer.write(put, PROGRESS, record_text(note).encode())
        self._written = time.monotonic()

    def close_segment(self, record: StepRecord) -> None:
        """Have the open segment written, which ends with ``record``, and begin the next; for a checkpoint after this step."""
        self._write(record, self._run.put)
        if record.step + 1 == self._total:
            self._tensorboard.add_end()
        self._writer.write(self._run.put, tensorboard_path(self._segment), self._tensorboard.take())
        self._segment, self._lines = record.step + 1, []
