"""Checks of this machine: shared memory, open files, and the folders that temporary files are written to."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

from crossdim.foundation import ray_needs
from crossdim.foundation.checks import CheckResult, Level
from crossdim.foundation.cluster import OBJECT_STORE_BYTES
from crossdim.foundation.rates import format_size

#: Below it a folder of temporary files is soon full; ours.
LITTLE_SPACE_BYTES = 2**30
#: Ray makes no objects on a file system that is fuller (its setting local_fs_capacity_threshold).
RAY_FULLEST = 0.95


def check_shared_memory() -> list[CheckResult]:
    """Check that shared memory has enough free space for the object store of a Ray session that is started here."""
    name, folder = ray_needs.MEMORY, ray_needs.SHARED_MEMORY
    if lack := _find_lack(name):
        return [lack]
    if not folder.exists():
        return [CheckResult(check=name, found=f"{folder} does not exist here; Ray uses its folder instead")]
    free, total = shutil.disk_usage(folder).free, shutil.disk_usage(folder).total
    found = f"{format_size(free)} of {format_size(total)} free in {folder}"
    if free < OBJECT_STORE_BYTES:
        slow = f"{found}; Ray wants {format_size(OBJECT_STORE_BYTES)} and uses the slower {ray_needs.find_ray_folder()[0]}"
        remedy = f"in a container, docker run --shm-size=2g; else: sudo mount -o remount,size=2G {folder}"
        return [CheckResult(check=name, level=Level.WARNING, found=slow, remedy=remedy)]
    return [CheckResult(check=name, found=found)]


def check_open_files() -> list[CheckResult]:
    """Check how many files a process may open."""
    if lack := _find_lack(ray_needs.FILES):
        return [lack]
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return [CheckResult(check=ray_needs.FILES, found="no limit")]
    found = f"a process may open {limit} files"
    if limit >= ray_needs.FEW_FILES:
        return [CheckResult(check=ray_needs.FILES, found=found)]
    remedy = ray_needs.advise_open_files(most)
    return [CheckResult(check=ray_needs.FILES, level=Level.WARNING, found=f"{found}, few for Ray", remedy=remedy)]


def check_folders() -> list[CheckResult]:
    """Check the space in the folder of temporary files and in that of Ray's sessions."""
    return [_check_temporary_folder(), _check_ray_folder()]


def _check_temporary_folder() -> CheckResult:
    name = "temporary folder"
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # no candidate can be written to
        remedy = "name a folder that can be written to: export TMPDIR=/PATH"
        return CheckResult(check=name, level=Level.FAILURE, found=str(error), remedy=remedy)
    return _check_space(name, folder, folder, "TMPDIR")


def _check_ray_folder() -> CheckResult:
    folder, there = ray_needs.find_ray_folder()
    if lack := _find_lack(ray_needs.FOLDER):
        return lack
    usage = shutil.disk_usage(there)
    used = 1 - usage.free / usage.total if usage.total else 0.0
    if used > RAY_FULLEST:
        found = f"the file system of {folder} is {used:.0%} full; Ray makes no objects above {RAY_FULLEST:.0%}"
        remedy = "free space there, or name a folder elsewhere: export RAY_TMPDIR=/PATH"
        return CheckResult(check=ray_needs.FOLDER, level=Level.WARNING, found=found, remedy=remedy)
    return _check_space(ray_needs.FOLDER, folder, there, "RAY_TMPDIR")


def _check_space(name: str, folder: Path, there: Path, variable: str) -> CheckResult:
    """Hold the free space of the file system of ``folder``, asked at ``there``, against what work needs."""
    remedy = f"free space there, or name a folder elsewhere: export {variable}=/PATH"
    if not os.access(there, os.W_OK | os.X_OK):
        return CheckResult(check=name, level=Level.FAILURE, found=f"{folder} cannot be written to", remedy=remedy)
    free = shutil.disk_usage(there).free
    found = f"{format_size(free)} free in {folder}"
    if free < ray_needs.FREE_BYTES:
        return CheckResult(check=name, level=Level.FAILURE, found=found, remedy=remedy)
    if free < LITTLE_SPACE_BYTES:
        return CheckResult(check=name, level=Level.WARNING, found=found, remedy=remedy)
    return CheckResult(check=name, found=found)


def _find_lack(name: str) -> CheckResult | None:
    """The failure if Ray could not start for want of this."""
    if name not in (lacks := ray_needs.find_lacks()):
        return None
    found, remedy = lacks[name]
    return CheckResult(check=name, level=Level.FAILURE, found=f"{found}; Ray cannot start", remedy=remedy)
