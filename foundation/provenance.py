"""Where a result comes from: the command, the versions of what it ran with, and the machine. Nothing depends on it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from crossdim.foundation.location import hide_secrets

#: Options whose value is not written down.
SECRET_OPTIONS = ("--access-key", "--secret-key")
#: Names of the program in ``sys.argv``: the installed command, and ``python -m`` with one of our packages.
PROGRAMS = ("crossdim", "__main__.py")


def record_provenance(packages: Sequence[str]) -> dict[str, Any]:
    """Record where a result comes from.

    Args:
        packages: distributions whose versions matter; those that are not installed are left out.

    Returns:
        JSON values: the command, if this process is one of ours; start, versions, machine.
    """
    ours = os.path.basename(sys.argv[0]) in PROGRAMS
    return ({"command": format_command(sys.argv)} if ours else {}) | {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"crossdim": _find_version("crossdim"), "python": platform.python_version()}
        | {name: version for name in packages if (version := _find_version(name))},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def format_command(argv: Sequence[str]) -> str:
    """Format the arguments of a process as a line that can be typed, without its secrets.

    Args:
        argv: as ``sys.argv``.

    Returns:
        The line; ``***`` stands for a secret.
    """
    shown, hidden = [], False
    for word in argv[1:]:
        option, equals, _ = word.partition("=")
        if hidden:
            shown.append("***")
        elif equals and option in SECRET_OPTIONS:
            shown.append(f"{option}=***")
        else:
            shown.append(hide_secrets(word))
        hidden = word in SECRET_OPTIONS
    return " ".join(["crossdim", shlex.join(shown).replace("'***'", "***")])
