"""Where tasks run: as tasks of the open Ray session, or one after the other in this process if none is open.

The work is the same, and so is every published byte. Ray takes some ten seconds to start and to stop, which a small job does
not win back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from crossdim.foundation import signals
from crossdim.foundation.cluster import has_session
from crossdim.pipelines.jobs import ray_data
from crossdim.pipelines.jobs.ray_data import Work, run_one
from crossdim.storage_schema.errors import StorageError

#: Jobs of at most so many files, and bytes of them, run in this process unless the user says otherwise. Ours.
LOCAL_FILES, LOCAL_BYTES = 1000, 128 << 20


class OpenSession(Protocol):
    """Opens what tasks run in: a Ray session, or nothing for a job that this process does."""

    def __call__(self, *, num_files: int, num_bytes: int) -> AbstractContextManager[None]:
        """Open it.

        Args:
            num_files: that the job reads.
            num_bytes: of them.
        """


def is_small(num_files: int, num_bytes: int) -> bool:
    """Whether a job is done sooner in this process than Ray starts.

    Args:
        num_files: that the job reads.
        num_bytes: of them.

    Returns:
        Whether it has at most :data:`LOCAL_FILES` files and :data:`LOCAL_BYTES` bytes.
    """
    return num_files <= LOCAL_FILES and num_bytes <= LOCAL_BYTES


def runs_here() -> bool:
    """Whether tasks run in this process, so that the first one begins at once."""
    return not has_session()


def run_each(documents: Sequence[str], work: Work, *, concurrency: int | None = None) -> Iterator[str]:
    """Run ``work`` on every document, one task each, and yield the answers as they come.

    Args:
        documents: texts.
        work: a function that may run several times for one document, and must then do the same.
        concurrency: largest number of tasks at a time on Ray; None leaves it to the cluster's CPUs.

    Yields:
        The answer to each document, on Ray in no particular order.

    Raises:
        StorageError: with the message of the first of our errors that a task met.
        CrossdimError: if workers of Ray keep dying.
    """
    if not runs_here():
        yield from ray_data.run_each(documents, work, concurrency=concurrency)
        return
    for document in documents:
        answer, error = run_one(document, work, "close other programs, or use a machine with more memory")
        signals.check()
        if error:
            raise StorageError(error)
        yield answer
