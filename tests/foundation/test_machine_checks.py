"""Checks of this machine, each seen to fail: what is too small is made so, or what is enough is set higher."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from crossdim.foundation import machine_checks, ray_needs
from crossdim.foundation.checks import Level
from crossdim.foundation.machine_checks import check_folders, check_open_files, check_shared_memory

HUGE = 2**70


def test_this_machine_is_fine() -> None:
    results = [*check_shared_memory(), *check_open_files(), *check_folders()]
    assert [one.check for one in results] == ["shared memory", "open files", "temporary folder", "Ray's folder"]
    assert Level.FAILURE not in {one.level for one in results}


@pytest.mark.parametrize(("limit", "level"), [(64, "failure"), (1024, "warning"), (4096, "ok")])
def test_few_open_files(limit: int, level: str) -> None:
    """In a process that is started with this limit, which it may raise again up to 65536."""
    script = (
        "from crossdim.foundation.machine_checks import check_open_files as check; print(*check()[0].__getstate__(), sep='|')"
    )
    line = f'ulimit -Sn {limit}; exec "$0" -c "$1"'
    done = subprocess.run(["bash", "-c", line, sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    check, found_level, found, remedy = done.stdout.strip().split("|")
    assert (check, found_level) == ("open files", level)
    assert f"{limit} files" in found
    assert remedy.startswith("ulimit -n ") if level != "ok" else remedy == ""


def test_a_hard_limit_is_raised_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks.resource, "getrlimit", lambda _: (1024, 1024))
    [result] = check_open_files()
    assert (result.level, "limits.conf" in result.remedy) == (Level.WARNING, True)
    monkeypatch.setattr(machine_checks.resource, "getrlimit", lambda _: (64, 64))
    [result] = check_open_files()
    assert (result.level, "limits.conf" in result.remedy) == (Level.FAILURE, True)


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "OBJECT_STORE_BYTES", HUGE)
    [result] = check_shared_memory()
    assert (result.level, "--shm-size" in result.remedy) == (Level.WARNING, True)


def test_shared_memory_that_may_not_be_written_to(monkeypatch: pytest.MonkeyPatch, ordinary_user: Path) -> None:
    """For want of it Ray does not start."""
    monkeypatch.setenv("RAY_TMPDIR", str(ordinary_user))
    (ordinary_user / "shm").mkdir(mode=0o500)
    monkeypatch.setattr(ray_needs, "SHARED_MEMORY", ordinary_user / "shm")
    [result] = check_shared_memory()
    assert (result.level, result.remedy) == (Level.FAILURE, f"let everybody write to it: sudo chmod 1777 {ordinary_user / 'shm'}")


def test_full_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_needs, "FREE_BYTES", HUGE)
    ours, of_ray = check_folders()
    assert (ours.level, "export TMPDIR=" in ours.remedy) == (Level.FAILURE, True)
    assert (of_ray.level, "RAY_TMPDIR" in of_ray.remedy) == (Level.FAILURE, True)


def test_folders_with_little_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "LITTLE_SPACE_BYTES", HUGE)
    assert {one.level for one in check_folders()} == {Level.WARNING}


def test_a_file_system_that_is_too_full_for_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "RAY_FULLEST", -1.0)
    _, of_ray = check_folders()
    assert (of_ray.level, "makes no objects" in of_ray.found) == (Level.WARNING, True)


def test_folders_that_may_not_be_written_to(monkeypatch: pytest.MonkeyPatch, ordinary_user: Path) -> None:
    closed = ordinary_user / "closed"
    closed.mkdir(mode=0o500)
    monkeypatch.setenv("RAY_TMPDIR", str(closed))
    monkeypatch.setattr(tempfile, "tempdir", str(closed))
    assert {(one.level, "cannot be written to" in one.found) for one in check_folders()} == {(Level.FAILURE, True)}


def test_no_temporary_folder_at_all(monkeypatch: pytest.MonkeyPatch, ordinary_user: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(ordinary_user / "absent")])
    ours, _ = check_folders()
    assert (ours.level, "No usable temporary directory" in ours.found) == (Level.FAILURE, True)
