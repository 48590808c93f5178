"""Shows the progress of a run on standard error, wherever its workers are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.progress import Progress, repeat_in_thread, show_progress, write_lines
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.metrics import read_progress
from crossdim.training.run_dir.records import Record

#: Seconds after which a stage is said to wait: Ray has reserved what workers need before they are there.
WAIT_AFTER_S = 20.0
#: Tells what a run waits for; None if for nothing.
FindWait = Callable[[], str | None]


class RunProgress:
    """The progress of a start of a run, fed by the notes of rank 0.

    Args:
        run: folder of the run.
        shown: where it is shown.
        steps: of the run.
        before: the note of the start before, which is no progress of this one.
    """

    def __init__(self, run: Bucket, shown: Progress, steps: int, before: Record | None) -> None:
        self._run, self._shown, self._steps, self._before = run, shown, steps, before
        self._stage, self._stage_began = "", 0.0
        self._find_wait: FindWait = lambda: None

    def stage(self, text: str, find_wait: FindWait = lambda: None) -> None:
        """Name what happens before the next step.

        Args:
            text: such as ``starting 2 workers``.
            find_wait: tells, in its place, what the run waits for.
        """
        if self._before and self._before["step"] == self._steps:
            return  # of the workers that end with the run
        self._stage, self._stage_began, self._find_wait = text, time.monotonic(), find_wait
        self._shown.stage(text)

    def update(self) -> None:
        """Show the newest note, or what the run waits for."""
        # A store that fails stops the run itself, with a message; it is not reported here too.
        with contextlib.suppress(StorageError):
            note = read_progress(self._run)
            if note and note != self._before:
                share = note["wait_s"] / max(note["step_s"], 1e-9)
                self._stage, self._before = "", note
                self._shown.reach(note["step"], f"loss {note['loss']:.4f}, data-wait {share:.0%}")
            elif self._stage and time.monotonic() - self._stage_began >= WAIT_AFTER_S:
                self._shown.stage(self._find_wait() or self._stage)


@contextlib.contextmanager
def show_run_progress(run: Bucket, done: int, total: int, *, quiet: bool) -> Iterator[RunProgress]:
    """Show the progress of a run inside a ``with`` block, from the step that it goes on from.

    Args:
        run: folder of the run.
        done: steps in the newest checkpoint.
        total: steps of the run.
        quiet: whether to show nothing.

    Yields:
        What is to be told about stages; steps are read from the run's folder every second, and once more at the end.
    """
    before = read_progress(run)
    if done and not quiet:
        again = f"; steps {done} to {before['step']} are done again" if before and before["step"] > done else ""
        write_lines([f"pretrain: going on from step {done} of {total}{again}"])
    with show_progress("pretrain", "step", total, done=done, quiet=quiet) as shown:
        progress = RunProgress(run, shown, total, before)
        try:
            if quiet:
                yield progress
                return
            with repeat_in_thread("run progress", 1.0, progress.update):
                yield progress
        finally:
            progress.update()
