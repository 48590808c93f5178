"""The only module that imports Ray Data: documents in, documents out.

Rows are references and short JSON texts; pixels are read, processed and written inside a task and never pass through Ray's
blocks. By default Ray repeats a task whose worker died without limit, so a limit is set.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from crossdim.foundation import signals
from crossdim.pipelines.extensions import list_extensions, load_extensions
from crossdim.storage_schema.errors import CrossdimError, StorageError

#: Attempts at a task whose worker dies, for example for want of memory. Our choice.
MAX_RETRIES = 3
#: What to do if tasks run out of memory.
FEWER_AT_A_TIME = "let fewer run at a time with --concurrency"
Work = Callable[[str], str]


def run_one(document: str, work: Work, remedy: str) -> tuple[str, str]:
    """Run a task.

    Args:
        document: of the task.
        work: answers it.
        remedy: what to do if it runs out of memory.

    Returns:
        The answer and no error, or no answer and our error's message: Ray would return a traceback as text.
    """
    try:
        return work(document), ""
    except CrossdimError as error:
        return "", str(error)
    except MemoryError as error:
        return "", f"a task ran out of memory ({error}); {remedy}"


def _batch(batch: dict[str, list[str]], work: Work, extensions: tuple[str, ...]) -> dict[str, list[str]]:
    load_extensions(extensions)
    answers = [run_one(str(document), work, FEWER_AT_A_TIME) for document in batch["document"]]
    return {"answer": [answer for answer, _ in answers], "error": [error for _, error in answers]}


def run_each(documents: Sequence[str], work: Work, *, concurrency: int | None = None) -> Iterator[str]:
    """Run ``work`` on every document, one task each, and yield the answers as they come, in no particular order.

    Args:
        documents: texts.
        work: a function that may run several times for one document, and must then do the same.
        concurrency: largest number of tasks at a time; None leaves it to the cluster's CPUs.

    Yields:
        The answer to each document.

    Raises:
        StorageError: with the message of the first of our errors that a task met.
        CrossdimError: if workers keep dying.
    """
    if not documents:
        return
    import ray.data  # takes a second or two, which is saved where Ray is not needed
    from ray.exceptions import OutOfMemoryError, WorkerCrashedError

    _quiet()
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to bound retries; from 2.64 on it must have one. To be looked at with the next pin.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        dataset = ray.data.from_items([{"document": text} for text in documents], override_num_blocks=len(documents)).map_batches(
            cast(Any, _batch),
            batch_size=1,
            fn_kwargs={"work": work, "extensions": list_extensions()},
            num_cpus=1,
            concurrency=concurrency,
            max_retries=MAX_RETRIES,
        )
    try:
        for row in dataset.iter_rows():
            signals.check()
            if row["error"]:
                raise StorageError(row["error"])
            yield row["answer"]
    except (WorkerCrashedError, OutOfMemoryError) as error:
        raise CrossdimError(
            f"workers died {MAX_RETRIES + 1} times at one task, most likely for want of memory ({type(error).__name__}); "
            f"{FEWER_AT_A_TIME}, and start the same command again"
        ) from error


def _quiet() -> None:
    """Turn Ray Data's progress bars and logs off: we show our own."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off
