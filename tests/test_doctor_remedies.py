"""Remedies of ``crossdim doctor``: each ends with a command that a shell takes as it stands, behind what to know about it."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from crossdim.foundation import machine_checks, package_checks, ray_needs
from crossdim.foundation.checks import CheckResult, Level
from crossdim.foundation.machine_checks import check_folders, check_open_files, check_shared_memory
from crossdim.foundation.package_checks import check_packages, check_python
from crossdim.foundation.ray_checks import compare_node
from crossdim.pipelines import codec_checks, codec_packages
from crossdim.pipelines.codec_checks import TRIALS, check_codec
from crossdim.training import torch_check
from crossdim.training.torch_check import check_torch

Patch = pytest.MonkeyPatch
HUGE = 2**70
HERE = {"Python": "3.11.7", "Ray": "2.60.0", "crossdim": "0.1.0"}
#: Programs that a remedy may begin with: those that a machine for crossdim has, and that act on nothing but what is named.
PROGRAMS = {"curl", "echo", "export", "nvidia-smi", "pip", "python3.11", "ray", "sudo", "ulimit", "crossdim"}


def _no_torch(patch: Patch, _: Path) -> list[CheckResult]:
    patch.setattr(importlib.util, "find_spec", lambda _: None)
    return check_torch()


def _broken_torch(patch: Patch, folder: Path) -> list[CheckResult]:
    (folder / "torch.py").write_text("raise ImportError('libcudart.so')")
    patch.setenv("PYTHONPATH", str(folder))
    return check_torch()


def _no_gpu(cuda: str) -> Callable[[Patch, Path], list[CheckResult]]:
    def check(patch: Patch, folder: Path) -> list[CheckResult]:
        (folder / "version").touch()
        patch.setattr(torch_check, "DRIVER", folder / "version")
        return [torch_check._describe_no_gpu(cuda)]

    return check


def _no_codec(syntax: str) -> Callable[[Patch, Path], list[CheckResult]]:
    def check(patch: Patch, _: Path) -> list[CheckResult]:
        patch.setattr(codec_packages, "MODULES", dict.fromkeys(codec_packages.MODULES, "no_such_module"))
        patch.setattr(codec_checks, "is_installed", lambda _: False)
        [trial] = [trial for trial in TRIALS if trial.name == syntax]
        return check_codec(replace(trial, stream=trial.stream[:8]))

    return check


def _no_packages(patch: Patch, _: Path) -> list[CheckResult]:
    patch.setattr(package_checks, "_find_version", lambda _: None)
    return check_packages()


def _little_shared_memory(patch: Patch, _: Path) -> list[CheckResult]:
    patch.setattr(machine_checks, "OBJECT_STORE_BYTES", HUGE)
    return check_shared_memory()


def _little_space(patch: Patch, _: Path) -> list[CheckResult]:
    patch.setattr(machine_checks, "LITTLE_SPACE_BYTES", HUGE)
    return check_folders()


def _full_folders(patch: Patch, _: Path) -> list[CheckResult]:
    patch.setattr(ray_needs, "FREE_BYTES", HUGE)
    return check_folders()


def _open_files(limit: int, most: int) -> Callable[[Patch, Path], list[CheckResult]]:
    def check(patch: Patch, _: Path) -> list[CheckResult]:
        patch.setattr(machine_checks.resource, "getrlimit", lambda _: (limit, most))
        return check_open_files()

    return check


def _other_ray(_patch: Patch, _: Path) -> list[CheckResult]:
    return [compare_node("machine", HERE | {"Ray": "2.59.0", "memory": HUGE}, HERE, 0)]


def _small_machine(_patch: Patch, _: Path) -> list[CheckResult]:
    return [compare_node("machine", HERE | {"memory": 1}, HERE, 2)]


FINDINGS: dict[str, tuple[Callable[[Patch, Path], list[CheckResult]], str]] = {
    "old Python": (lambda *_: check_python((3, 10, 1)), "failure"),
    "no packages": (_no_packages, "warning"),
    "no torch": (_no_torch, "warning"),
    "broken torch": (_broken_torch, "failure"),
    "driver older than torch": (_no_gpu("13.0"), "warning"),
    "torch for processors": (_no_gpu(""), "warning"),
    "no codec": (_no_codec("HTJ2K"), "warning"),
    "no codec of another licence": (_no_codec("JPEG Extended, 12 bits"), "warning"),
    "little shared memory": (_little_shared_memory, "warning"),
    "little space": (_little_space, "warning"),
    "full folders": (_full_folders, "failure"),
    "few files": (_open_files(1024, 65536), "warning"),
    "very few files": (_open_files(64, 65536), "failure"),
    "few files, which may not be raised": (_open_files(64, 64), "failure"),
    "another Ray": (_other_ray, "failure"),
    "machine with little shared memory": (_small_machine, "warning"),
}


@pytest.mark.parametrize("name", FINDINGS)
def test_a_remedy_ends_with_a_command(name: str, monkeypatch: Patch, tmp_path: Path) -> None:
    find, level = FINDINGS[name]
    found = [one for one in find(monkeypatch, tmp_path) if one.level is not Level.OK]
    monkeypatch.undo()
    assert level in {one.level for one in found}
    for one in found:
        command = one.remedy.rpartition(": ")[2]
        assert command.split()[0] in PROGRAMS, one
        subprocess.run(["bash", "-n", "-c", command], check=True)
