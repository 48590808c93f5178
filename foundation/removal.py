"""What every verb that removes something does first: it looks for links, and asks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.names import printable


def check_links(folder: Bucket) -> None:
    """Refuse to remove anything from a folder that is a link or holds links; objects of other stores are never links.

    Raises:
        UsageError: naming the link and where it leads.
    """
    if not folder.is_local:
        return
    if os.path.islink(folder.root):
        real = printable(os.path.realpath(folder.root))
        raise UsageError(
            f"{folder.where('')} is a symbolic link to {real}; nothing is removed through a link: name {real} instead"
        )
    for parent, folders, files in os.walk(folder.root):
        for path in (os.path.join(parent, name) for name in (*folders, *files)):
            if os.path.islink(path):
                target = printable(os.path.realpath(path))
                raise UsageError(
                    f"{printable(path)} is a symbolic link to {target}; nothing is removed through a link: remove the link first"
                )


def confirm_removal(verb: str, lines: Iterable[str]) -> bool:
    """Ask whether something is to be removed; only a clear yes counts.

    Args:
        verb: that asks.
        lines: what would be removed.

    Returns:
        Whether the answer was yes.

    Raises:
        UsageError: if nobody can be asked.
    """
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise UsageError(f"{verb} asks for confirmation, but stdin is not a terminal; pass --yes")
    try:
        sys.stderr.write("".join([*(f"{line}\n" for line in lines), "Remove permanently? [y/N] "]))
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    except KeyboardInterrupt:
        sys.stderr.write("\n")  # the line about it begins below the question
        raise
