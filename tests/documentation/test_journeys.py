"""The journeys, typed into a terminal as they stand, and the recordings of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.documentation.blocks import PAGES, find_blocks
from tests.documentation.recordings import (
    FOLDER,
    HOME,
    STORE,
    hold_against_what_is_kept,
    leave_out_figures,
    record_own_files,
    record_own_loop,
)
from tests.system.conftest import Store, s3
from tests.training.published import images, publish, superpatches

__all__ = ["s3"]  # a fixture

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("tmux"), reason="journeys are typed into tmux: apt-get install tmux"),
]


@pytest.mark.timeout(1200)
def test_own_files_on_one_machine(tmp_path: Path) -> None:
    """Every block of the page in order, from generated files to the nearest neighbours by the encoder's features."""
    recording = record_own_files(tmp_path)
    shown = {one.command: one.text for one in recording.shown}
    interrupted = [one for one in recording.shown if one.code]
    assert [one.code for one in interrupted] == [130], "Ctrl-C, and nothing else, ends a command before its end"
    assert interrupted[0].text.count("%|") == 1, "the bar stands there twice"
    assert re.search(r"resuming from step \d+ of 40", shown[interrupted[0].command])
    assert "24 samples" in shown["crossdim verify data/xr"]
    assert (tmp_path / "runs/first/encoder.pt").exists()
    assert (tmp_path / "runs/first/report.html").exists()
    assert (tmp_path / "ct.html").exists()
    assert not (tmp_path / "runs/second").exists()  # --print-config does nothing else
    assert re.search(r"\[\('\w+', '\w+'\), ", shown["python nearest.py"])
    hold_against_what_is_kept("own-files", recording)


def test_streaming_into_your_own_loop(s3: Store, tmp_path: Path) -> None:
    """The page's program against a real server, twice: the second time it resumes."""
    publish(s3.bucket("xr"), images(12), "xr")
    publish(s3.bucket("ct-1mm"), superpatches(8, side=32), "ct")
    assert STORE in (PAGES / "journeys/own-loop.md").read_text()
    recording = record_own_loop(tmp_path, str(s3.options.endpoint_url))
    seen = [re.findall(r"^(\d+) samples seen$", one.text, re.MULTILINE) for one in recording.shown]
    assert (seen, [one.code for one in recording.shown]) == ([["20"], ["40"]], [0, 0])
    hold_against_what_is_kept("own-loop", recording)


def test_output_on_the_page_is_that_of_the_recording() -> None:
    """Line by line, figures apart."""
    blocks = [block for _, block in find_blocks((PAGES / "journeys/own-files.md").read_text(), "text")]
    outputs = [line for block in blocks for line in block.splitlines() if not block.startswith("raw/")]
    recorded = (FOLDER / "own-files.md").read_text().replace(f"{HOME}/", "")
    assert len(outputs) > 5
    assert set(map(leave_out_figures, outputs)) <= set(map(leave_out_figures, recorded.splitlines()))


def test_recordings_are_small_and_hold_no_folder_of_a_machine() -> None:
    files = sorted(FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) < 300_000
    found = [
        path.name for path in files if re.search(r"/(?:tmp|root|work)/|127\.0\.0\.1:(?!8265|8000)|\x1b\[31m", path.read_text())
    ]
    assert found == []
