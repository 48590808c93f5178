"""Real servers and real commands: an S3-protocol server in a process of its own, and verbs run as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError

from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.training.run_dir.metrics import read_metrics
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared" / "data"
PATIENCE_S = 400


@dataclass(frozen=True)
class Store:
    """Where the objects of a test lie, and the arguments that reach them."""

    root: str
    options: StoreOptions
    arguments: tuple[str, ...] = ()

    def bucket(self, path: str) -> Bucket:
        return Bucket(f"{self.root}/{path}", self.options)


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """A folder of this machine."""
    return Store(str(tmp_path), StoreOptions())


@pytest.fixture(scope="session")
def s3() -> Iterator[Store]:
    """A bucket on an S3-protocol server that lives as long as the tests; credentials travel as arguments only."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    line = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = boto3.client("s3", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1")
        deadline = time.monotonic() + 30
        while True:
            try:
                client.create_bucket(Bucket="lab")
                break
            except BotoCoreError:  # the server is not up yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        options = StoreOptions(endpoint_url=url, access_key="k", secret_key="s", region="us-east-1")
        arguments = ("--endpoint-url", url, "--access-key", "k", "--secret-key", "s", "--region", "us-east-1")
        yield Store("s3://lab", options, arguments)
    finally:
        server.kill()
        server.wait()


def start(*arguments: str) -> subprocess.Popen[str]:
    """A verb in a process group of its own, with none of our environment's credentials."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    environment["OMP_NUM_THREADS"] = "1"  # as Ray gives its workers: with and without it, a run computes the same
    return subprocess.Popen(
        [sys.executable, "-m", "crossdim", *arguments],
        cwd=REPOSITORY,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> None:
    """Signal 9 for a verb and all it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def crossdim(*arguments: str, expect: tuple[int, ...] = (0,)) -> str:
    """Run a verb to its end; what it printed. A wrong exit code fails the test with both streams."""
    process = start(*arguments)
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode in expect, f"crossdim {' '.join(arguments)} ended with {process.returncode}\n{out}\n{err[-4000:]}"
    assert "Traceback" not in err
    return out


def kill_at(process: subprocess.Popen[str], run: Bucket, step: int) -> None:
    """Signal 9 for a run and all it started, once ``step`` steps are noted in storage."""
    deadline = time.monotonic() + PATIENCE_S
    try:
        while len(read_metrics(run)) < step:
            assert process.poll() is None, f"the run ended before step {step}: {process.communicate()[1][-4000:]}"
            assert time.monotonic() < deadline, f"the run did not reach step {step}"
            time.sleep(0.3)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
