"""Requests to stores that are under way in this process, so that a wait for a store can be told while it lasts."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

#: When and for what each thread that waits for a store has asked.
_ASKED: dict[int, tuple[float, str]] = {}
os.register_at_fork(after_in_child=_ASKED.clear)  # a forked process has none of its parent's threads


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingRequest:
    """A request without an answer yet.

    Attributes:
        place: URL of the object.
        waited_s: since it was first made; attempts that failed count.
    """

    place: str
    waited_s: float


@contextlib.contextmanager
def note_request(place: str) -> Iterator[None]:
    """Context in which this thread waits for a store to answer about ``place``."""
    thread = threading.get_ident()
    _ASKED[thread] = time.monotonic(), place
    try:
        yield
    finally:
        _ASKED.pop(thread, None)


def find_oldest_request() -> PendingRequest | None:
    """The request that has been without an answer for longest; None if there is none."""
    asked, place = min(list(_ASKED.values()), default=(0.0, ""))
    return PendingRequest(place=place, waited_s=time.monotonic() - asked) if place else None
