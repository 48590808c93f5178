"""The journeys, run as they are typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.blocks import PAGES, ROOT, find_blocks, join_python
from tests.system.conftest import Store, s3
from tests.training.published import images, publish, superpatches

__all__ = ["s3"]  # a fixture

TIMEOUT_S = 400


def _run(line: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{shlex.join(line)} ended with {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.system
@pytest.mark.timeout(1200)
def test_own_files_on_one_machine(tmp_path: Path) -> None:
    """Every block of the page in order, from generated files to the nearest neighbours by the encoder's features."""
    shown: list[str] = []
    for language, block in find_blocks((PAGES / "journeys/own-files.md").read_text(), "python", "sh"):
        if language == "python":
            shown.append(_run([sys.executable, "-c", block], tmp_path))
            continue
        lines = [line for line in block.splitlines() if not line.startswith("pip install")]
        shown += [_run([sys.executable, "-m", *shlex.split(line)], tmp_path) for line in lines]
    assert "24 samples" in shown[1]
    assert (tmp_path / "runs/first/encoder.pt").exists()
    assert (tmp_path / "runs/first/report.html").exists()
    assert (tmp_path / "ct.html").exists()
    assert not (tmp_path / "runs/second").exists()  # --print-config does nothing else
    assert re.search(r"\[\('\w+', '\w+'\), ", shown[-1])


@pytest.mark.system
def test_streaming_into_your_own_loop(s3: Store, tmp_path: Path) -> None:
    """The page's program against a real server, twice: the second time it resumes."""
    publish(s3.bucket("xr"), images(12), "xr")
    publish(s3.bucket("ct-1mm"), superpatches(8, side=32), "ct")
    (tmp_path / "lab.ini").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    text = join_python((PAGES / "journeys/own-loop.md").read_text())
    assert "http://store.local:9000" in text
    program = tmp_path / "program.py"
    program.write_text(text.replace("http://store.local:9000", str(s3.options.endpoint_url)))
    seen = [re.findall(r"^(\d+) samples seen$", _run([sys.executable, str(program)], tmp_path), re.MULTILINE) for _ in range(2)]
    assert seen == [["20"], ["40"]]
