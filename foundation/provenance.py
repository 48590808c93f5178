"""Where a result comes from: the command, versions, git state and machine, and how it ended. Nothing depends on it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from crossdim.foundation import signals
from crossdim.foundation.git_state import record_git_states
from crossdim.foundation.location import hide_secrets
from crossdim.storage_schema.errors import CrossdimError, NoSampleError

#: Options whose value is not written down.
SECRET_OPTIONS = ("--access-key", "--secret-key")
#: Names of the program in ``sys.argv``: the installed command, and ``python -m`` with one of our packages.
PROGRAMS = ("crossdim", "__main__.py")


def record_provenance(packages: Sequence[str], hidden: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Record where a result comes from.

    Args:
        packages: distributions whose versions matter; those that are not installed are left out.
        hidden: what stands for values of the command that are not written down.

    Returns:
        JSON values: the command, if this process is one of ours; start, versions, git state, machine.
    """
    ours = os.path.basename(sys.argv[0]) in PROGRAMS
    return ({"command": format_command(sys.argv, hidden)} if ours else {}) | {
        "started": format_time(),
        "versions": {"crossdim": _find_version("crossdim"), "python": platform.python_version()}
        | {name: version for name in packages if (version := _find_version(name))},
        "git": record_git_states(Path(__file__).resolve()),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def describe_outcome(error: BaseException | None) -> str:
    """Describe how work ended, in words that are recorded.

    Args:
        error: that ended it; None if it is done.

    Returns:
        ``finished``, ``interrupted by SIGTERM`` (or another signal), or ``failed:`` with a sentence, without secrets.
    """
    if error is None:
        return "finished"
    if stop := find_stop(error):
        return f"interrupted by {stop}"
    return f"failed: {describe_failure(error)}"


def find_stop(error: BaseException) -> str | None:
    """Find the signal that ended work: whatever fails after a stop signal follows from it; None if there was none."""
    stop = signals.received() or (signals.SIGINT if isinstance(error, KeyboardInterrupt) else None)
    return stop.name if stop else None


def describe_failure(error: BaseException) -> str:
    """Describe an error in a sentence on one line, without secrets and without names that stay with the owner of the data."""
    text = error.recorded if isinstance(error, NoSampleError) else str(error)
    said = " ".join(hide_secrets(text).split())
    return said if isinstance(error, CrossdimError) else f"{type(error).__name__}: {said}"


def format_time() -> str:
    """The present time in UTC, such as ``2026-01-31T12:00:00+00:00``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def format_command(argv: Sequence[str], hidden: Mapping[str, str] | None = None) -> str:
    """Format the arguments of a process as a line that can be typed, without its secrets.

    Args:
        argv: as ``sys.argv``.
        hidden: what stands for further values that are not written down, such as paths with names of patients in them.

    Returns:
        The line; ``***`` stands for a secret.
    """
    names = hidden or {}
    shown, secret = [], False
    for word in argv[1:]:
        option, equals, value = word.partition("=")
        if secret:
            shown.append("***")
        elif word in names or value in names:
            shown.append(names[word] if word in names else f"{option}={names[value]}")
        elif equals and option in SECRET_OPTIONS:
            shown.append(f"{option}=***")
        else:
            shown.append(hide_secrets(word))
        secret = word in SECRET_OPTIONS
    return " ".join(["crossdim", shlex.join(shown).replace("'***'", "***")])
