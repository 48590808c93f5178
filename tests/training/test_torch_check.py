"""The check of PyTorch, in a process of its own: there, broken, absent; with and without a GPU."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

import pytest

from crossdim.foundation.checks import Level
from crossdim.training import torch_check
from crossdim.training.torch_check import check_torch

#: A torch that can be imported and computes wrongly.
WRONG_SUM = """
__version__ = "2.0"

class version:
    cuda = None

class ones:
    def __init__(self, number):
        pass

    def sum(self):
        return 7
"""


@pytest.mark.integration
def test_the_version_is_that_of_the_package_and_no_gpu_is_no_failure() -> None:
    version, gpu = check_torch()
    assert (version.level, version.found.split(",")[0]) == (Level.OK, metadata.version("torch"))
    assert gpu.level is Level.OK


@pytest.mark.gpu
def test_a_gpu_is_named() -> None:
    import torch

    _, gpu = check_torch()
    assert (gpu.level, torch.cuda.get_device_name(0) in gpu.found) == (Level.OK, True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("raise ImportError('libcudart.so.13: cannot open shared object file')", "ImportError: libcudart.so.13: cannot open"),
        ("import os; os.abort()", "its process ends with -6"),
        (WRONG_SUM, "does not compute here: AssertionError"),
    ],
    ids=["library", "abort", "wrong sum"],
)
def test_a_torch_that_does_not_work_is_a_failure(text: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [result] = check_torch()
    assert (result.level, found in result.found) == (Level.FAILURE, True)
    assert "--force-reinstall" in result.remedy


def test_a_torch_that_hangs_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import sys; sys.stdin = open('/dev/zero'); sys.stdin.read()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(torch_check, "PATIENCE_S", 0.2)
    [result] = check_torch()
    assert (result.level, "is not imported within" in result.found) == (Level.FAILURE, True)


def test_without_torch_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that prepares needs none."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    [result] = check_torch()
    assert (result.level, result.remedy) == (Level.WARNING, "pip install 'crossdim[train]'")


@pytest.mark.parametrize(("cuda", "remedy"), [("13.0", "update the driver"), ("", "a build for its CUDA version")])
def test_a_gpu_that_this_torch_does_not_find_is_a_warning(cuda: str, remedy: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "version").touch()
    monkeypatch.setattr(torch_check, "DRIVER", tmp_path / "version")
    result = torch_check._describe_no_gpu(cuda)
    assert (result.level, remedy in result.remedy) == (Level.WARNING, True)
