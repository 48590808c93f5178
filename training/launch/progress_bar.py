"""Shows the progress of a run on standard error."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import StorageError
from crossdim.training.run_dir.metrics import read_progress


@contextlib.contextmanager
def repeat_in_thread(name: str, every_s: float, work: Callable[[], None]) -> Iterator[None]:
    """Call a function again and again in a thread, inside a ``with`` block.

    Args:
        name: of the thread.
        every_s: seconds between calls.
        work: the function; it must be thread-safe.

    Yields:
        Nothing; the thread ends with the block, after a call that is under way.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(every_s):
            work()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def show_progress(run: Bucket, done: int, total: int, *, quiet: bool) -> Iterator[None]:
    """Show a progress bar inside a ``with`` block, fed by the progress note of rank 0, wherever the workers are.

    Args:
        run: folder of the run.
        done: steps done before this start.
        total: steps of the run.
        quiet: whether to show none.

    Yields:
        Nothing; the bar is updated every second, and once more at the end.
    """
    if quiet:
        yield
        return
    with tqdm(total=total, initial=done, unit="step", desc="pretrain", file=sys.stderr, dynamic_ncols=True) as bar:

        def update() -> None:
            # A store that fails stops the run itself, with a message; the bar does not report it too.
            with contextlib.suppress(StorageError):
                _update_bar(run, bar)

        try:
            with repeat_in_thread("progress", 1.0, update):
                yield
        finally:
            update()


def _update_bar(run: Bucket, bar: Any) -> None:
    note = read_progress(run)
    if note and note["step"] > bar.n:
        share = note["wait_s"] / max(note["step_s"], 1e-9)
        bar.set_postfix_str(f"loss {note['loss']:.4f}, data-wait {share:.0%}", refresh=False)
        bar.update(note["step"] - bar.n)
