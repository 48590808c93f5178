"""A machine on which Ray cannot start is told at once what is missing; Ray itself waits for a minute."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from crossdim.foundation import ray_needs
from crossdim.foundation.ray_needs import OPEN_FILES, refuse_machine
from crossdim.storage_schema.errors import RunError


def test_this_machine_has_what_ray_needs() -> None:
    refuse_machine()


def test_few_open_files_are_told() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES - 1, before[1]))
    try:
        with pytest.raises(RunError, match=f"may open only {OPEN_FILES - 1} files: ulimit -n"):
            refuse_machine()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_full_folder_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also one that is still to be made: its parent's file system counts."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "absent" / "ray"))
    monkeypatch.setattr(ray_needs, "FREE_BYTES", 2**70)
    with pytest.raises(
        RunError, match=r"Ray cannot start on this machine: .*/absent/ray is full: free .* export RAY_TMPDIR=/PATH"
    ):
        refuse_machine()


def test_all_that_is_missing_is_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of folders that this user may not write to; root may write to all but what the kernel keeps."""
    closed = Path("/proc/1") if Path("/proc/1").exists() else Path("/")
    if os.access(closed, os.W_OK):
        monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("RAY_TMPDIR", str(closed))
    monkeypatch.setattr(ray_needs, "SHARED_MEMORY", closed)
    with pytest.raises(
        RunError, match=r"cannot be written to: name another folder: export RAY_TMPDIR=/PATH; .*: sudo chmod 1777 "
    ):
        refuse_machine()
