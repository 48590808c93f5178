"""Keeps a forked process away from the connections of its parent.

Both have the same sockets and, on Linux, the same epoll object. fsspec drops the filesystems of the parent in the child; when
they are collected there, their connections are taken out of that object, or get TLS's goodbye, and the parent waits in vain for
its next answer: 30 seconds, seen with s3fs. So the child keeps them as they are, and their event loop has an epoll of its own.
"""

from __future__ import annotations

import os
import select
import selectors
import weakref
from typing import Any

_opened: weakref.WeakSet[Any] = weakref.WeakSet()
#: References that a child keeps for ever; empty in other processes, but for the moment of a fork.
_kept: list[Any] = []


def protect_from_forks(filesystem: Any) -> None:
    """Leave a filesystem's connections to this process, whatever its forked children do.

    Args:
        filesystem: of fsspec; those without an event loop need nothing.
    """
    if getattr(filesystem, "async_impl", False):
        _opened.add(filesystem)


def _before_fork() -> None:
    _kept[:] = [*_opened, *(filesystem.loop for filesystem in _opened)]


def _after_fork_in_child() -> None:
    for one in _kept:
        selector = getattr(one, "_selector", None)
        if isinstance(selector, selectors.EpollSelector):
            selector._selector = select.epoll()  # type: ignore[attr-defined]


os.register_at_fork(before=_before_fork, after_in_parent=_kept.clear, after_in_child=_after_fork_in_child)
