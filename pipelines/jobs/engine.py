"""The one door to Ray Data: documents in, documents out.

Rows are references and small facts, as JSON text; pixels are read, changed and written inside a task and never travel
through blocks. Ray repeats a task whose worker died without end unless told otherwise, so it is told.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import ray.data
from ray.exceptions import RayError

from storage_schema.errors import CrossdimError, StorageError

#: Attempts at a task whose worker dies, for instance for want of memory. Ours.
MAX_RETRIES = 3
Work = Callable[[str], str]


def _batch(batch: dict[str, list[str]], work: Work) -> dict[str, list[str]]:
    return {"document": [work(str(document)) for document in batch["document"]]}


def each(documents: Sequence[str], work: Work, *, concurrency: int | None = None) -> Iterator[str]:
    """Do ``work`` on every document, one task each, and yield the answers as they come, in no particular order.

    Args:
        documents: texts.
        work: a function that may run several times for one document, and must then do the same.
        concurrency: largest number of tasks at a time; None leaves it to the cluster's CPUs.
    """
    if not documents:
        return
    _quiet()
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to bound retries; from 2.64 on it must have one. To be looked at with the next pin.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        dataset = ray.data.from_items([{"document": text} for text in documents], override_num_blocks=len(documents)).map_batches(
            cast(Any, _batch),
            batch_size=1,
            fn_kwargs={"work": work},
            num_cpus=1,
            concurrency=concurrency,
            max_retries=MAX_RETRIES,
        )
    try:
        for row in dataset.iter_rows():
            yield row["document"]
    except RayError as error:
        raise _own(error) from error


def _quiet() -> None:
    """Our own bars tell what is done; Ray's tell of blocks and operators."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that its bars are off


def _own(error: BaseException) -> CrossdimError:
    """The error of ours that a task raised; Ray wraps it several times."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, CrossdimError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    told = str(error).strip().splitlines() or [type(error).__name__]
    return StorageError(f"a worker could not finish its task: {told[-1]}; the same command goes on from here")
