"""A run on this machine listens on the loopback interface alone, whichever process of it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.processes import find_started_with
from tests.listening import LOOPBACK, command_line, listening
from tests.system.test_stops import MARK, STEPS, pretraining, running
from tests.training.published import images, publish

pytestmark = [
    pytest.mark.system,
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux's /proc"),
]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_process_of_a_run_listens_where_others_reach_it(workers: int, tmp_path: Path) -> None:
    """Workers meet at a store of PyTorch's, which by itself listens on all interfaces and lets everybody in."""
    publish(Bucket(str(tmp_path / "data")), images(30), "flat")
    with running(*pretraining(tmp_path / "data", tmp_path / "run", workers, 100_000)) as verb:
        verb.until(STEPS)
        found = {pid: listening(pid) for pid in find_started_with(MARK, verb.mark)}
        training = {pid for pid in found if "RayTrainWorker" in command_line(pid)}

        assert len(training) == workers
        assert any(found[pid] for pid in training)
        assert {host for where in found.values() for host, _ in where} <= set(LOOPBACK)
