"""Jobs in the process of the command: what they say, and a reader of their output that leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossdim.pipelines.cli import main
from crossdim.pipelines.jobs.engine import LOCAL_BYTES, LOCAL_FILES, run_each
from crossdim.storage_schema.errors import StorageError


def _out_of_memory(_: str) -> str:
    raise MemoryError("4 GiB")


def test_memory_that_runs_out_here_is_told_without_options_of_ray() -> None:
    """One task runs at a time in this process: fewer cannot."""
    with pytest.raises(StorageError, match=r"a task ran out of memory \(4 GiB\); close other programs, or use a machine"):
        list(run_each(["a"], _out_of_memory))


@pytest.mark.parametrize("verb", ["prepare", "verify"])
def test_help_tells_which_jobs_are_small(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    told = f"for up to {LOCAL_FILES} files and {LOCAL_BYTES >> 20} MiB in total"
    assert told in " ".join(capsys.readouterr().out.split())


def _make_images(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("lines", [0, 1])
def test_a_preparation_whose_reader_leaves_is_finished(lines: int, tmp_path: Path) -> None:
    """``crossdim prepare ... 2>&1 | head -1``: it ended at its second line, with a traceback that nobody saw."""
    line = ["prepare", str(_make_images(tmp_path / "raw")), "--recipe", "xray-pseudo3d:tiny", "--out", str(tmp_path / "out")]
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-m", "crossdim", *line, "--local"], stdout=writing, stderr=writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        first = [pipe.readline() for _ in range(lines)]
    assert process.wait(120) == 0
    assert first == ["scan: reading the first files\n"] * lines
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.integration
def test_an_error_that_nobody_reads_has_its_exit_code(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    line = ["verify", str(tmp_path / "none"), "--local"]
    process = subprocess.Popen([sys.executable, "-m", "crossdim", *line], stdout=writing, stderr=writing)
    os.close(writing)
    assert process.wait(120) == 2
