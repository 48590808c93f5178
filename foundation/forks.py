"""Keeps a forked process away from the connections of its parent.

Both have the same sockets and, on Linux, the same epoll object. What the child drops of a client is taken out of that object, or
gets TLS's goodbye, and the parent waits in vain for its next answer: 30 seconds, seen with s3fs. Or the child waits itself, for
ever, for a lock that a thread of the parent held at the fork: once in 300 forks, seen with obstore. So the child never drops a
client of its parent, and the parent's event loop has an epoll object of its own there.
"""

from __future__ import annotations

import ctypes
import os
import select
import selectors
import threading
import weakref
from typing import Any

_opened: weakref.WeakSet[Any] = weakref.WeakSet()
_opened_lock = threading.Lock()
#: Of a fork that is under way: the clients, and the event loops of those that have one.
_kept: list[Any] = []


def protect_from_forks(client: Any) -> None:
    """Leave a client's connections to this process, whatever its forked children do.

    Args:
        client: a filesystem of fsspec, or any object that holds connections and can be weakly referenced.
    """
    with _opened_lock:
        _opened.add(client)


def _before_fork() -> None:
    _opened_lock.acquire()
    for client in _opened:
        _kept.append(client)
        if getattr(client, "async_impl", False):
            _kept.append(client.loop)


def _after_fork_in_parent() -> None:
    _kept.clear()
    _opened_lock.release()


def _after_fork_in_child() -> None:
    for one in _kept:
        # A reference that nobody gives back: Python, too, drops everything when it ends.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
        selector = getattr(one, "_selector", None)
        if isinstance(selector, selectors.EpollSelector):
            selector._selector = select.epoll()  # type: ignore[attr-defined]
    _opened.clear()
    _after_fork_in_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
