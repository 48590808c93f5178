"""Shows the progress of a run on standard error, wherever its workers are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from crossdim.foundation.bars import write_lines
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.progress import Progress, show_progress
from crossdim.foundation.threads import repeat_in_thread
from crossdim.storage_schema.errors import StorageError
from crossdim.training.launch.waiting import Wait
from crossdim.training.run_dir.metrics import read_progress
from crossdim.training.run_dir.records import Record

#: Seconds after which a stage is said to wait: Ray has reserved what workers need before they are there.
WAIT_AFTER_S = 20.0
#: Tells what a run without workers waits for; None if for nothing.
FindWait = Callable[[], Wait | None]


class RunProgress:
    """The progress of a start of a run, fed by the notes of rank 0.

    Args:
        run: folder of the run.
        shown: where it is shown.
        before: the note of the start before, which is no progress of this one.
    """

    def __init__(self, run: Bucket, shown: Progress, before: Record | None) -> None:
        self._run, self._shown, self._before = run, shown, before
        self._lock = threading.Lock()
        self._find_wait: FindWait | None = None
        self._waits = False

    def stage(self, text: str, find_wait: FindWait | None = None) -> None:
        """Name what happens before the next step.

        Args:
            text: such as ``starting 2 workers``.
            find_wait: if there are no workers, tells what the run waits for.
        """
        with self._lock:
            self._find_wait, self._waits = find_wait, False
            self._shown.stage(text)

    def read_note(self) -> None:
        """Show the newest note; one that is found without workers is of those that have ended, and the stage goes on."""
        # A store that fails stops the run itself, with a message; it is not reported here too.
        with contextlib.suppress(StorageError):
            note = read_progress(self._run)
            with self._lock:
                if not note or note == self._before:
                    return
                self._before = note
                if self._find_wait is None:
                    share = note["wait_s"] / max(note["step_s"], 1e-9)
                    rank = f", RankMe {note['rank_me']:.1f}" if "rank_me" in note else ""
                    self._shown.reach(note["step"], f"loss {note['loss']:.4f}{rank}, data-wait {share:.0%}")

    def update(self) -> None:
        """Show the newest note, or what the run waits for."""
        self.read_note()
        find_wait = self._find_wait
        if find_wait is None or self._shown.stage_s < WAIT_AFTER_S:
            return
        wait = find_wait()
        with self._lock:
            if self._find_wait is find_wait:  # else workers came while Ray was asked
                # Once it waits it does so until all is reserved, however often others take and return what it needs.
                self._waits = wait is not None and (wait.is_short or self._waits)
                self._shown.wait(wait.sentence if wait and self._waits else "")


@contextlib.contextmanager
def show_run_progress(run: Bucket, done: int, total: int, *, quiet: bool) -> Iterator[RunProgress]:
    """Show the progress of a run inside a ``with`` block, from the step that it resumes from.

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
        write_lines([f"pretrain: resuming from step {done} of {total}{_describe_repeats(done, before)}"])
    with show_progress("pretrain", "step", total, done=done, quiet=quiet) as shown:
        progress = RunProgress(run, shown, before)
        try:
            if quiet:
                yield progress
                return
            with repeat_in_thread("run progress", 1.0, progress.update):
                yield progress
        finally:
            progress.read_note()


def _describe_repeats(done: int, before: Record | None) -> str:
    """Steps of the start before that its newest checkpoint does not hold."""
    repeats = before["step"] - done if before else 0
    if repeats < 1:
        return ""
    return f"; step{'' if repeats == 1 else 's'} {done + 1}{'' if repeats == 1 else f' to {done + repeats}'} will be repeated"
