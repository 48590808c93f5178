"""What a run on Ray shows when it ends or is stopped, with more workers than the machine may have cores."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from tests.system.test_stops import STEPS, Verb, pretraining, running
from tests.training.published import images, publish

pytestmark = [
    pytest.mark.system,
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are counted through Linux's /proc"),
]
WORKERS = 3


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    publish(Bucket(str(tmp_path / "data")), images(30), "flat")
    return tmp_path / "data"


def _read_progress(verb: Verb) -> list[str]:
    """Lines of progress, without their figures."""
    return re.findall(r"pretrain: (starting \d+ workers?|preparing the first step|\d+/\d+)", verb.printed.decode())


def test_a_run_that_is_done_starts_no_workers(dataset: Path, tmp_path: Path) -> None:
    """The controller tears workers down: that was shown as a start. On one machine workers share its cores, and none waits."""
    with running(*pretraining(dataset, tmp_path / "run", WORKERS, 3)) as verb:
        verb.until(rf"pretrain: starting {WORKERS} workers")
        code, _ = verb.end()
    shown = _read_progress(verb)
    assert (code, shown[-1]) == (0, "3/3"), verb.printed.decode()
    assert f"starting {WORKERS} workers" not in shown[shown.index("preparing the first step") :]
    assert b"waiting" not in verb.printed


def test_a_run_that_is_stopped_starts_no_workers(dataset: Path, tmp_path: Path) -> None:
    with running(*pretraining(dataset, tmp_path / "run", WORKERS, 1000)) as verb:
        verb.until(STEPS)
        verb.signal(signal.SIGINT)
        code, _ = verb.end()
    shown = _read_progress(verb)
    assert code == 130
    assert f"starting {WORKERS} workers" not in shown[shown.index("preparing the first step") :]
