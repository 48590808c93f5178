"""Lab: a Ray cluster on hosts, and an S3-protocol server for datasets and a run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.exceptions import BotoCoreError

from crossdim.foundation.bucket import Bucket, StoreOptions
from tests.programs import RAY
from tests.system.hosts import Hosts, address, name

T = TypeVar("T")

HEAD, STEADY, DOOMED, STORE = range(4)
GCS = f"{address(HEAD)}:6379"
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
#: Death is noticed after about 9 seconds: for a cable on this machine, not for busy networks.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "3000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
SMALL = ("--object-store-memory=120000000", "--block")
#: What systemd makes of a unit with Restart=always and RestartSec=1.
UNIT = 'while :; do "$@"; sleep 1; done'
#: Prints a line whenever the living nodes are others than before.
WATCH = """
import json, sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False)
seen = None
while True:
    alive = sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])
    if alive != seen:
        print(json.dumps({"time_s": time.time(), "alive": alive}), flush=True)
    seen = alive
    time.sleep(0.1)
"""


def awaited(condition: Callable[[], T | None], what: str, patience_s: float = 180) -> T:
    """What the condition answers, once that is something."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {patience_s:.0f} s"
        time.sleep(0.1)
    return found


@dataclass(frozen=True, kw_only=True)
class Lab:
    """A Ray cluster on hosts, and a store for datasets and a run."""

    hosts: Hosts
    folder: Path
    options: StoreOptions
    arguments: tuple[str, ...]

    def bucket(self, path: str) -> Bucket:
        """A dataset or a run."""
        return Bucket(f"s3://lab/{path}", self.options)

    def join(self, host: int) -> None:
        """Make a host a worker of the cluster, under supervision."""
        line = [RAY, "start", f"--address={GCS}", f"--node-ip-address={address(host)}", "--num-cpus=1", *SMALL]
        self.hosts.start(host, ["bash", "-c", UNIT, "unit", *line], self.folder / f"{name(host)}.log", **SETTINGS)
        awaited(lambda: name(host) in self.alive(), f"{name(host)} joins")

    def line(self, run: str, workers: str, steps: int, *more: str) -> list[str]:
        """A run on the dataset ``solid``, as arguments of ``crossdim``."""
        where = ["--data", self.bucket("solid").url, "--out", self.bucket(run).url, *self.arguments]
        return ["pretrain", "--recipe", "maesil:tiny", *where, "--workers", workers, "--steps", str(steps), "--json", *more]

    def drive(self, line: list[str]) -> subprocess.Popen[bytes]:
        """Start a driver on the head."""
        command = [sys.executable, "-m", "crossdim", *line, "--ray-address", GCS]
        return self.hosts.start(HEAD, command, self.folder / "driver.log", **SETTINGS)

    def finish(self, driver: subprocess.Popen[bytes], patience_s: float = 400) -> None:
        """Wait for a driver's good end."""
        code = driver.wait(patience_s)
        assert code == 0, (self.folder / "driver.log").read_text()[-4000:]

    def seen(self) -> list[dict[str, Any]]:
        """Who was alive in Ray's eyes, from when on."""
        log = self.folder / "watch.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines if line.startswith('{"time_s"') and line.endswith("}")]

    def alive(self) -> list[str]:
        """Names of the hosts that Ray takes for alive."""
        seen = self.seen()
        return seen[-1]["alive"] if seen else []

    def changed(self, host: int, alive: bool, since: float) -> float | None:
        """When a host came to life or died in Ray's eyes, if it did since."""
        return next((n["time_s"] for n in self.seen() if n["time_s"] > since and (name(host) in n["alive"]) is alive), None)


@contextlib.contextmanager
def laboratory(folder: Path) -> Iterator[Lab]:
    """Head and store are up, no worker has joined; logs go to ``folder``."""
    with Hosts(4) as hosts:
        head = [RAY, "start", "--head", f"--node-ip-address={address(HEAD)}", "--port=6379", "--num-cpus=0", *SMALL]
        hosts.start(HEAD, [*head, "--include-dashboard=false"], folder / "head.log", **SETTINGS, **HEALTH)
        server = [sys.executable, "-m", "moto.server", "-H", address(STORE), "-p", "5000"]
        hosts.start(STORE, server, folder / "store.log")
        url = f"http://{address(STORE)}:5000"
        options = StoreOptions(endpoint_url=url, access_key="k", secret_key="s", region="us-east-1")
        arguments = ("--endpoint-url", url, "--access-key", "k", "--secret-key", "s", "--region", "us-east-1")
        awaited(lambda: _created(options), "the store answers")
        health = [RAY, "health-check", "--address", GCS]
        awaited(lambda: hosts.run(HEAD, health, **SETTINGS).returncode == 0, "the head answers")
        hosts.start(HEAD, [sys.executable, "-c", WATCH, GCS], folder / "watch.log", **SETTINGS)
        yield Lab(hosts=hosts, folder=folder, options=options, arguments=arguments)


def _created(options: StoreOptions) -> bool:
    keys = {"aws_access_key_id": options.access_key, "aws_secret_access_key": options.secret_key}
    client = boto3.client("s3", endpoint_url=options.endpoint_url, region_name=options.region, **keys)
    try:
        client.create_bucket(Bucket="lab")
    except BotoCoreError:  # the server is not up yet
        return False
    return True
