"""Elastic runs on real clusters of several nodes: workers come and go, the experiment stays the same."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from foundation.bucket import Bucket
from tests.system.conftest import crossdim, ended, start
from tests.training.published import publish, superpatches
from training.metrics import PROGRESS, events, legible, read_metrics

pytestmark = [
    pytest.mark.ray,
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # ray.cluster_utils leaves sockets open
]

#: What Ray's head is told in deploy/, shortened to what one quiet machine bears.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
PATIENCE_S = 240
STORE_BYTES = 120_000_000
#: A step of tens of milliseconds, of a method whose norms stay inside a sample, with an optimizer that does not amplify rounding.
RECIPE = ("--recipe", "maesil:tiny", "--set", "global_batch=48", "--set", 'optimizer={"kind": "sgd", "lr": 0.01}')


class Nodes:
    """A Ray cluster on this machine: a head that computes nothing, and nodes of one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._cluster.add_node(num_cpus=0, object_store_memory=STORE_BYTES, include_dashboard=False)
        self._nodes: list[Any] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))

    def kill(self, number: int) -> float:
        """Signal 9 for one node and all on it; when."""
        node = self._nodes.pop(number)
        at = time.time()
        self._cluster.remove_node(node, allow_graceful=False)
        return at

    def __len__(self) -> int:
        return len(self._nodes)

    def stop(self) -> None:
        self._cluster.shutdown()


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    for name, value in (HEALTH | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    found = Nodes()
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    bucket = Bucket(str(tmp_path_factory.mktemp("data")))
    publish(bucket, superpatches(20), "solid")
    return bucket.url


def line(data: str, run: Path, steps: int, *more: str) -> tuple[str, ...]:
    return ("pretrain", *RECIPE, "--data", data, "--out", str(run), "--steps", str(steps), "--threads", "1", *more)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a loss of workers cost: seconds to be noticed, to have workers again, to the first step of them; training done again."""

    noticed_s: float
    started_s: float
    stepped_s: float
    redone_s: float

    @property
    def seconds(self) -> float:
        return self.noticed_s + self.started_s + self.stepped_s

    def __str__(self) -> str:
        parts = f"noticed {self.noticed_s:.1f} s, workers up {self.started_s:.1f} s, first step {self.stepped_s:.1f} s"
        return f"{self.seconds:.1f} s to the next step ({parts}); {self.redone_s:.1f} s of training again"


def awaited(run: Bucket, process: Any, what: Any, patience_s: float = PATIENCE_S) -> Any:
    """The first true answer of ``what()``, while the run lives."""
    deadline = time.monotonic() + patience_s
    while True:
        if found := what():
            return found
        assert process.poll() is None, f"the run ended: {process.communicate()}"
        assert time.monotonic() < deadline, f"nothing after {patience_s} s; events: {[e.path for e in events(run)]}"
        time.sleep(0.1)


def noted(run: Bucket, kind: str, after: int = 0) -> dict[str, Any] | None:
    """The first event of a kind with a number above ``after``, and its number."""
    for event in events(run):
        if event.kind == kind and event.number > after:
            told = legible(run, event.path)
            return told[0] | {"number": event.number} if told else None
    return None


def stepped(run: Bucket, after_s: float) -> dict[str, Any] | None:
    """The progress note, if it is younger."""
    told = legible(run, PROGRESS)
    return told[0] if told and told[0]["time_s"] > after_s else None


def workers_train(run: Bucket, process: Any, workers: int, after: int) -> dict[str, Any]:
    """Wait until a start with so many workers has made a step; its event."""

    def up() -> dict[str, Any] | None:
        for kind in ("start", "resume"):
            told = noted(run, kind, after)
            while told and told["workers"] != workers:
                told = noted(run, kind, told["number"])
            if told and stepped(run, told["time_s"]):
                return told
        return None

    found: dict[str, Any] = awaited(run, process, up)
    return found


def same_experiment(elastic: Bucket, fixed: Bucket) -> float:
    """Samples, mixture and rates of every step are equal; the largest difference of losses."""
    one, two = read_metrics(fixed), read_metrics(elastic)
    for name in ("step", "samples", "counts", "lr", "voxels"):
        assert [record[name] for record in two] == [record[name] for record in one], name
    return max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True))


def test_one_worker_becomes_three_becomes_two(nodes: Nodes, data: str, tmp_path: Path) -> None:
    steps = 500
    run, fixed = Bucket(str(tmp_path / "elastic")), Bucket(str(tmp_path / "fixed"))
    elastic = ("--workers", "1:3", "--ray-address", nodes.address, "--resize-every", "3", "--checkpoint-every", "5s")
    nodes.add()
    process = start(*line(data, tmp_path / "elastic", steps, *elastic))
    try:
        first = workers_train(run, process, 1, after=0)
        nodes.add(2)
        three = workers_train(run, process, 3, after=first["number"])
        resize = noted(run, "resize")
        assert resize is not None
        assert resize["step"] == three["step"], "the step that was saved before the resize is the one that is resumed"
        killed_at = nodes.kill(2)
        two = workers_train(run, process, 2, after=three["number"])
        lost = noted(run, "lost")
        assert lost is not None
        print(f"killed: noticed after {lost['time_s'] - killed_at:.1f} s, resumed after {two['time_s'] - killed_at:.1f} s")
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err[-3000:]
    finally:
        ended(process)
    crossdim(*line(data, tmp_path / "fixed", steps, "--workers", "0"))
    difference = same_experiment(run, fixed)
    print(f"largest difference of losses: {difference:.2e}")
    assert difference < 1e-5
