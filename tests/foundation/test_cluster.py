"""A Ray session: joined where there is a cluster, started and stopped where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.ray

SCRIPT = """
from foundation.cluster import ray_session
with ray_session({address!r}, num_cpus=1):
    import ray
    print(ray.get(ray.remote(lambda: 7).remote()), ray.get_runtime_context().gcs_address, sep="|")
assert not ray.is_initialized()
"""


def _session(address: str | None, **environment: str) -> tuple[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    line = [sys.executable, "-c", SCRIPT.format(address=address)]
    done = subprocess.run(line, env=clean | environment, capture_output=True, text=True, timeout=120, check=True)
    answer, found = done.stdout.strip().splitlines()[-1].split("|")
    assert answer == "7"
    return answer, found


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that somebody else runs."""
    script = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment = clean | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    line = [sys.executable, "-c", script]
    process = subprocess.Popen(
        line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def test_a_session_is_started_here_when_no_cluster_is_named(cluster: str) -> None:
    """Also beside a cluster of somebody else's on the same machine, which Ray itself would join unasked."""
    assert _session(None)[1] != cluster


def test_a_named_cluster_is_joined_and_left_running(cluster: str) -> None:
    for _ in range(2):
        assert _session(cluster, RAY_AUTH_MODE="disabled")[1] == cluster


def test_a_job_of_a_cluster_joins_it_by_itself(cluster: str) -> None:
    """Ray tells its jobs where they are through RAY_ADDRESS; starting a second cluster there would be an error."""
    assert _session(None, RAY_ADDRESS=cluster, RAY_AUTH_MODE="disabled")[1] == cluster
