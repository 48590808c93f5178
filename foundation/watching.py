"""Shows a status once, or again and again until it changes no more."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Container
from dataclasses import asdict
from typing import Any

from crossdim.foundation import signals
from crossdim.foundation.entry_point import DONE, FAILED, INTERRUPTED, print_result
from crossdim.foundation.location import hide_secrets
from crossdim.storage_schema.errors import StorageError
from crossdim.storage_schema.names import printable

#: To the upper left corner of a terminal, and clear it.
_CLEAR = "\x1b[H\x1b[J"


def report_status(
    read: Callable[[float], Any], arguments: argparse.Namespace, *, final: Container[str], good: Container[str]
) -> int:
    """Show a status as the options of a command line say.

    Args:
        read: reads it, given the clock in seconds since 1970; returns a dataclass with a ``state``, whose text is for people.
        arguments: with ``json``, and with ``watch``: the seconds between two looks, or None for a single one.
        final: states in which nothing happens any more.
        good: states for which the exit code is 0.

    Returns:
        The exit code.
    """
    if arguments.watch:
        found = watch_status(read, arguments.watch, final, as_json=arguments.json)
        if found is None:
            return INTERRUPTED
    else:
        found = read(time.time())
        print_result(asdict(found), str(found), as_json=arguments.json)
    return DONE if found.state in good else FAILED


def watch_status(read: Callable[[float], Any], interval_s: float, final: Container[str], *, as_json: bool) -> Any:
    """Print a status again and again, until its state is final or nobody reads it. A terminal is cleared before each.

    A store that fails after it has answered once is asked again at the next interval: watching takes days.

    Args:
        read: as for :func:`report_status`.
        interval_s: seconds between two looks.
        final: states in which nothing happens any more.
        as_json: whether to print JSON, a line for each look.

    Returns:
        The last status; None if it was interrupted by Ctrl-C, which is the usual end and prints nothing.

    Raises:
        StorageError: if the store fails at the first look.
        KeyboardInterrupt: after SIGTERM.
    """
    found = None
    try:
        while True:
            try:
                found = read(time.time())
            except StorageError as error:
                if found is None:
                    raise
                sys.stderr.write(f"{printable(hide_secrets(str(error)))}; trying again in {interval_s:g} s\n")
                sys.stderr.flush()
            else:
                if sys.stdout.isatty():
                    sys.stdout.write(_CLEAR)
                if not print_result(asdict(found), str(found), as_json=as_json) or found.state in final:
                    return found
            time.sleep(interval_s)
    except KeyboardInterrupt:
        if signals.received() in (None, signals.SIGINT):
            return None
        raise
