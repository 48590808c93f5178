"""The one door to Ray Data: documents in, documents out.

Rows are references and small facts, as JSON text; pixels are read, changed and written inside a task and never travel
through blocks. Ray repeats a task whose worker died without end unless told otherwise, so it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import ray.data

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
    dataset = ray.data.from_items([{"document": text} for text in documents], override_num_blocks=len(documents)).map_batches(
        _batch, batch_size=1, fn_kwargs={"work": work}, num_cpus=1, concurrency=concurrency, max_retries=MAX_RETRIES
    )
    for row in dataset.iter_rows():
        yield row["document"]
