"""The state of git checkouts: of which commit the code of this process is, and whether files differ from it.

A person who wants to repeat a result needs it. It is asked of git, which may be missing, slow or refuse to answer: that is
recorded, and nothing depends on it. Of a checkout only the commit is told, no path, branch or address.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: A working directory may be a large checkout on a slow file system.
PATIENCE_S = 5.0
#: It takes no locks, which others may wait for, and runs no program that the configuration of a checkout names.
GIT = ("git", "--no-optional-locks", "--literal-pathspecs", "-c", "core.fsmonitor=false")
#: They would have git look at another checkout.
REDIRECTIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
NO_CHECKOUT = "not a git checkout"
#: Characters of a commit that are shown to people.
SHOWN = 12


class _UnansweredError(Exception):
    """Git gave no answer; the text says why."""


def record_git_states(code: Path) -> dict[str, dict[str, Any]]:
    """Record the state of the checkout that the code is imported from, and that of the working directory if it is another one.

    Args:
        code: a file of the code.

    Returns:
        For ``crossdim``, and for ``working directory`` if it is in another checkout: ``commit`` and ``dirty``, which is whether
        files that git knows differ from the commit; or ``unknown``, which says why there is no commit.
    """
    states = {"crossdim": _read_code(code)}
    try:
        checkout = _find_checkout(Path.cwd())
    except OSError:  # it was removed
        return states
    if checkout and (checkout != _find_checkout(code) or "unknown" in states["crossdim"]):
        states["working directory"] = _read_checkout(checkout)
    return states


def format_git_states(states: Any) -> str:
    """Format states for people: such as ``crossdim 0123456789ab, files changed; working directory: no commit yet``.

    What is not as :func:`record_git_states` returns it, for it was read from a file, is left out.
    """
    if not isinstance(states, Mapping):
        return ""
    return "; ".join(_format_state(name, state) for name, state in states.items() if isinstance(state, Mapping))


def _format_state(name: str, state: Mapping[str, Any]) -> str:
    if "commit" not in state:
        return f"{name}: {state.get('unknown', 'unknown')}"
    return f"{name} {str(state['commit'])[:SHOWN]}{', files changed' if state.get('dirty') else ''}"


def _read_code(code: Path) -> dict[str, Any]:
    """The state of the checkout that a file belongs to; a file that lies in one and is not of it, as in ``.venv``, has none."""
    checkout = _find_checkout(code)
    if checkout is None:
        return {"unknown": NO_CHECKOUT}
    try:
        if not _ask(checkout, "ls-files", "--", str(code)):
            return {"unknown": NO_CHECKOUT}
    except _UnansweredError as why:
        return {"unknown": str(why)}
    return _read_checkout(checkout)


def _read_checkout(checkout: Path) -> dict[str, Any]:
    try:
        lines = _ask(checkout, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    except _UnansweredError as why:
        return {"unknown": str(why)}
    commit = next((line.split()[2] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    if commit == "(initial)":
        return {"unknown": "no commit yet"}
    return {"commit": commit, "dirty": any(not line.startswith("#") for line in lines)}


def _find_checkout(path: Path) -> Path | None:
    """The nearest folder above a path, or itself, that holds ``.git``: a folder, or a file in worktrees and submodules."""
    return next((folder for folder in (path, *path.parents) if os.path.lexists(folder / ".git")), None)


def _ask(checkout: Path, *arguments: str) -> list[str]:
    """The lines that git answers in a checkout.

    Raises:
        _UnansweredError: if it does not answer. What it says itself is left out, for it names folders.
    """
    environment = {name: value for name, value in os.environ.items() if name not in REDIRECTIONS}
    try:
        done = subprocess.run(
            [*GIT, *arguments],
            cwd=checkout,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _UnansweredError(f"git does not answer within {PATIENCE_S:.0f} s") from None
    except OSError:
        raise _UnansweredError("git is not found") from None
    if done.returncode:
        raise _UnansweredError("git cannot read the checkout")
    return done.stdout.decode(errors="replace").splitlines()
