"""Nodes: a Ray cluster on this machine that gains and loses nodes, an elastic run on it, and the fixed run it must equal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from crossdim.foundation.bucket import Bucket
from crossdim.training.run_dir import layout
from crossdim.training.run_dir.events import list_events
from crossdim.training.run_dir.metrics import read_metrics, read_recent
from crossdim.training.run_dir.records import read_records
from tests.programs import RAY
from tests.system.conftest import ended, start
from tests.training.published import publish, superpatches

T = TypeVar("T")

#: Marks of a module that starts such clusters: ray.cluster_utils leaves sockets open.
MARKS = [
    pytest.mark.ray,
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
#: What Ray's head is told in deploy/, shortened to what one quiet machine bears.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
ENVIRONMENT = HEALTH | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
PATIENCE_S = 240
STORE_BYTES = 120_000_000
#: A step of tens of milliseconds, of a method whose norms stay inside a sample, with an optimizer that does not amplify rounding.
RECIPE = ("--recipe", "maesil:tiny", "--set", "global_batch=48", "--set", 'optimizer={"kind": "sgd", "lr": 0.01}')
#: More than any test waits for: runs are stopped, and what they did is compared.
STEPS = 100_000
#: Sums over other shares of a batch are rounded otherwise.
TOLERANCE = 1e-5


class Nodes:
    """A head that computes nothing, and nodes of one CPU each."""

    def __init__(self, port: int | None = None) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        where = {} if port is None else {"gcs_server_port": port}
        self._cluster.add_node(num_cpus=0, object_store_memory=STORE_BYTES, include_dashboard=False, **where)
        self._nodes: list[Any] = []
        self.address = str(self._cluster.address)

    def add(self, count: int = 1) -> None:
        for _ in range(count):
            self._nodes.append(self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES))

    def kill(self, number: int) -> float:
        """Signal 9 for one node and all on it; when."""
        node = self._nodes.pop(number)
        at = time.time()
        self._cluster.remove_node(node, allow_graceful=False)
        return at

    def kill_head(self) -> float:
        """Signal 9 for the head and all on it; when."""
        at = time.time()
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)
        return at

    def silence_head(self) -> float:
        """Signal 9 for the process that keeps the cluster's books: what a driver on another machine sees of a lost head; when."""
        at = time.time()
        self._cluster.head_node.kill_gcs_server(check_alive=False)
        return at

    def kill_worker(self, number: int) -> float:
        """Signal 9 for the training process of a node, which itself goes on; when."""
        raylet = self._nodes[number].all_processes["raylet"][0].process.pid
        worker = next(pid for pid in _children(raylet) if "RayTrainWorker" in _title(pid))
        at = time.time()
        os.kill(worker, signal.SIGKILL)
        return at

    def drain(self, number: int, seconds: int) -> float:
        """Tell Ray that a node will be taken away, as an autoscaler does; when it will be."""
        reason = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot")
        line = (RAY, "drain-node", "--address", self.address, "--node-id", self._nodes[number].node_id, *reason)
        subprocess.run([*line, "--deadline-remaining-seconds", str(seconds)], check=True, capture_output=True)
        return time.time() + seconds

    def __len__(self) -> int:
        return len(self._nodes)

    def stop(self) -> None:
        self._cluster.shutdown()


def _children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


@contextlib.contextmanager
def cluster(monkeypatch: pytest.MonkeyPatch, port: int | None = None) -> Iterator[Nodes]:
    """A cluster without nodes, and its end; at any free port, or at the one that another had."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    found = Nodes(port)
    try:
        yield found
    finally:
        found.stop()


def line(data: Bucket, run: Bucket, *more: str) -> tuple[str, ...]:
    where = ("--data", data.url, "--out", run.url)
    return ("pretrain", *RECIPE, *where, "--steps", str(STEPS), "--threads", "1", *more)


def published(folder: Path) -> Bucket:
    bucket = Bucket(str(folder / "data"))
    publish(bucket, superpatches(20), "solid")
    return bucket


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A verb, which is ended at the latest with the block."""
    process = start(*arguments)
    try:
        yield process
    finally:
        ended(process)


def stopped(process: subprocess.Popen[str], patience_s: float = PATIENCE_S) -> str:
    """Request a run to stop, as a scheduler does; its last sentence."""
    process.send_signal(signal.SIGTERM)
    return failed(process, patience_s)


def failed(process: subprocess.Popen[str], patience_s: float = PATIENCE_S) -> str:
    """Wait for the end of a run that fails: exit code 2 and one sentence, which is returned."""
    _, err = process.communicate(timeout=patience_s)
    assert process.returncode == 2, f"exit code {process.returncode}: {err[-4000:]}"
    assert "Traceback" not in err, err[-4000:]
    sentences = [text for text in err.splitlines() if text.startswith("error: ")]
    assert len(sentences) == 1, err[-4000:]
    return sentences[0]


class Fixed:
    """The run that nothing happens to: in one process, as far as somebody needs it."""

    def __init__(self, folder: Path) -> None:
        self.data, self._run = published(folder), Bucket(str(folder / "fixed"))

    def difference(self, run: Bucket) -> float:
        """Samples, mixture and rates of every step of ``run`` are those of this one; the largest difference of losses."""
        two = read_metrics(run)
        assert [record["step"] for record in two] == list(range(len(two)))
        self._reach(len(two))
        one = read_metrics(self._run)[: len(two)]
        for name in ("step", "samples", "counts", "lr", "voxels"):
            assert [record[name] for record in two] == [record[name] for record in one], name
        return max(abs(a["loss"] - b["loss"]) for a, b in zip(one, two, strict=True))

    def _reach(self, steps: int) -> None:
        if len(read_recent(self._run, steps)) >= steps:
            return
        with started(*line(self.data, self._run, "--workers", "0", "--checkpoint-every", "1000")) as process:
            awaited(self._run, process, lambda: (read_records(self._run, layout.PROGRESS) or [{"step": 0}])[0]["step"] >= steps)
            stopped(process)


def awaited(run: Bucket, process: Any, what: Callable[[], T | None], patience_s: float = PATIENCE_S) -> T:
    """The first true answer of ``what()``, while the run lives."""
    deadline = time.monotonic() + patience_s
    while not (found := what()):
        assert process.poll() is None, f"the run ended: {process.communicate()}"
        assert time.monotonic() < deadline, f"nothing after {patience_s} s; events: {[e.path for e in list_events(run)]}"
        time.sleep(0.1)
    return found


def noted(run: Bucket, kind: str, after: int = 0) -> dict[str, Any] | None:
    """The first event of a kind with a number above ``after``, and its number."""
    for event in list_events(run):
        if event.kind == kind and event.number > after:
            records = read_records(run, event.path)
            return records[0] | {"number": event.number} if records else None
    return None


def stepped(run: Bucket, after_s: float) -> dict[str, Any] | None:
    """The progress note, if it is younger."""
    note = read_records(run, layout.PROGRESS)
    return note[0] if note and note[0]["time_s"] > after_s else None


def workers_train(run: Bucket, process: Any, workers: int | None, after: int) -> dict[str, Any]:
    """Wait until a start with so many workers (None: with any) has made a step; its event."""

    def up() -> dict[str, Any] | None:
        for kind in ("start", "resume"):
            event = noted(run, kind, after)
            while event and workers not in (None, event["workers"]):
                event = noted(run, kind, event["number"])
            if event and stepped(run, event["time_s"]):
                return event
        return None

    return awaited(run, process, up)


def saved_step(run: Bucket, process: Any, after: int) -> int:
    """Wait for a checkpoint noted after an event; its step."""
    found = awaited(run, process, lambda: noted(run, "checkpoint", after))
    return int(found["step"])
