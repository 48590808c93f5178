"""An elastic run on a real cluster of several nodes: workers come and go, the experiment stays the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir.events import list_events
from tests.system.nodes import MARKS, TOLERANCE, Fixed, Nodes, cluster, line, started, stopped, workers_train

pytestmark = [*MARKS, pytest.mark.timeout(900)]
_LOG = logging.getLogger(__name__)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with cluster(monkeypatch) as found:
        yield found


def test_one_worker_becomes_three_becomes_two(nodes: Nodes, tmp_path: Path) -> None:
    fixed, run = Fixed(tmp_path), Bucket(str(tmp_path / "elastic"))
    elastic = ("--workers", "1:3", "--ray-address", nodes.address, "--resize-every", "3", "--checkpoint-every", "5s")
    nodes.add()
    with started(*line(fixed.data, run, *elastic)) as process:
        first = workers_train(run, process, 1, after=0)
        nodes.add(2)
        three = workers_train(run, process, 3, after=first["number"])
        before = [event for event in list_events(run) if event.kind == "resize" and event.number < three["number"]]
        assert before[-1].step == three["step"], "the step that was saved before the resize is the one that is resumed"
        nodes.kill(2)
        workers_train(run, process, 2, after=three["number"])
        stopped(process)
    difference = fixed.difference(run)
    _LOG.info("largest difference of losses: %.2e", difference)
    assert difference < TOLERANCE
