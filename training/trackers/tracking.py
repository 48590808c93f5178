"""Tracking: the hook of rank 0 that sends the numbers of steps to trackers, each step once.

Numbers are sent when the checkpoint that contains their steps is written, as those of TensorBoard: steps that are done again were
not sent before. ``trackers/<name>.json`` in the folder of the run says under which identifier a tracker knows the run, and which
step it wants next. Steps before that one are never sent again, and at a start it gets those that it lacks from ``metrics/``: of a
time when it could not be reached, or before it was asked for. Only a process that is killed between sending and noting sends
the steps of one checkpoint twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.extras import is_found
from crossdim.foundation.location import hide_secrets
from crossdim.storage_schema.errors import RunError
from crossdim.training.engine.control import Request
from crossdim.training.engine.step_record import StepRecord
from crossdim.training.run_dir.layout import TRACKERS as NOTES
from crossdim.training.run_dir.layout import tracker_of, tracker_path
from crossdim.training.run_dir.metrics import list_figures, read_log
from crossdim.training.run_dir.records import read_records, record_text
from crossdim.training.run_dir.settings_table import list_values
from crossdim.training.trackers.base import End, StepFigures, TrackedRun, Tracker
from crossdim.training.trackers.table import TRACKERS
from crossdim.training.trackers.tracker_thread import TrackerThread


class Tracking:
    """Sends to the trackers of one start of a run; as a context manager it says how the run ended.

    Args:
        run: its folder.
        names: of the trackers.
        config: document of the run's configuration.
        done: steps done before this start.
        total: steps of the run.
    """

    def __init__(self, run: Bucket, names: Sequence[str], config: Mapping[str, Any], done: int, total: int) -> None:
        self._open: list[StepFigures] = []
        self._done, self._total, self._stopped = done, total, False
        self._senders = [_Sender(run, name, config) for name in names]
        for sender in self._senders:
            sender.send_missing(done)

    def __enter__(self) -> Self:
        return self

    def after_step(self, record: StepRecord, request: Request) -> None:
        """Keep the numbers of a step until its checkpoint.

        Args:
            record: of the step.
            request: not used.
        """
        if self._senders:
            self._open.append((record.step, list_figures(asdict(record) | record.rates)))

    def before_checkpoint(self, record: StepRecord) -> None:
        """Send the steps that the checkpoint will contain."""
        steps, self._open, self._done = self._open, [], record.step + 1
        for sender in self._senders:
            sender.send(steps)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        end: End = "failed" if error else "finished" if self._done == self._total else "stopped"
        for sender in self._senders:
            sender.thread.send(lambda tracker: tracker.close(end))
        for sender in self._senders:
            sender.thread.finish()


class _Sender:
    """One tracker of a run, and the note on it."""

    def __init__(self, run: Bucket, name: str, config: Mapping[str, Any]) -> None:
        self._run, self._name, self._config = run, name, config
        self._next_step = 0
        again = "The next start sends what is missing"
        remedy = f"{again}; if its run was deleted there, delete {run.where(tracker_path(name))}"
        self.thread = TrackerThread(TRACKERS[name].title, self._open, remedy)

    def _open(self) -> Tracker:
        if not is_found(self._name):  # on this machine; the driver's has it
            raise RunError(f"it is not installed on the machine of rank 0: pip install 'crossdim[{self._name}]'")
        note = next(iter(read_records(self._run, tracker_path(self._name))), {})
        known, wanted = note.get("identifier"), note.get("next_step")
        self._next_step = wanted if type(wanted) is int else 0
        where = hide_secrets(self._run.where(""))
        tracked = TrackedRun(name=where.rstrip("/").rpartition("/")[2], where=where, settings=list_values(self._config))
        tracker = TRACKERS[self._name].open(tracked, known if isinstance(known, str) else None)
        self._put_note(tracker)
        return tracker

    def _put_note(self, tracker: Tracker) -> None:
        note = {"identifier": tracker.identifier, "next_step": self._next_step}
        self._run.put(tracker_path(self._name), record_text(note).encode())

    def send(self, steps: Sequence[StepFigures]) -> None:
        """Have those steps sent that the tracker does not have."""
        self.thread.send(lambda tracker: self._send(tracker, steps))

    def send_missing(self, done: int) -> None:
        """Have those of the steps done before sent that the tracker does not have."""

        def read_and_send(tracker: Tracker) -> None:
            if self._next_step < done:
                records = read_log(self._run)[0]
                self._send(tracker, [(record["step"], list_figures(record)) for record in records if record["step"] < done])

        self.thread.send(read_and_send)

    def _send(self, tracker: Tracker, steps: Sequence[StepFigures]) -> None:
        wanted = [one for one in steps if one[0] >= self._next_step]
        if wanted:
            tracker.log_steps(wanted)
            self._next_step = wanted[-1][0] + 1
            self._put_note(tracker)


def send_evaluation(
    run: Bucket, config: Mapping[str, Any], steps: Sequence[StepFigures], texts: Mapping[str, str], *, finished: bool
) -> None:
    """Send an evaluation to the trackers that a run has; what cannot be sent is a warning.

    Args:
        run: its folder.
        config: document of its configuration.
        steps: figures of its checkpoints, by name.
        texts: for people, by name.
        finished: whether the run is.
    """
    stored = run.list_objects(NOTES) if run.exists(NOTES) else []
    senders = [_Sender(run, name, config) for one in stored if (name := tracker_of(one.path))]

    def send(tracker: Tracker) -> None:
        tracker.log_steps(steps)
        for name, text in texts.items():
            tracker.log_text(name, text)
        tracker.close("finished" if finished else "stopped")

    for sender in senders:
        sender.thread.send(send)
    for sender in senders:
        sender.thread.finish()
