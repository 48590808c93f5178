"""What every test shares: how hard Hypothesis tries, a server that speaks S3, and the rights of an ordinary user."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from crossdim.foundation.bucket import Bucket, StoreOptions

# Before torch is loaded: idle OpenMP threads sleep instead of taking the processor from the others; and where tests run side by
# side, each process computes in one thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests that run side by side: in this folder Ray keeps the session that processes of the machine find.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["RAY_TMPDIR"] = f"/tmp/ray-{worker}"
    Path(os.environ["RAY_TMPDIR"]).mkdir(exist_ok=True)

# No deadline: a busy machine is no fault of the code. A failing example is printed so that it can be replayed elsewhere.
settings.register_profile(
    "crossdim", deadline=None, max_examples=60, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("crossdim")


#: Files of tests with Ray that take a minute or more. Beginning with them, two processes end at about the same time.
LONG_FILES = (
    "test_whole_way.py",
    "test_readme.py",
    "test_chaos.py",
    "test_elastic.py",
    "test_kills.py",
    "test_stops.py",
    "test_wheel.py",
)
#: Their tests share no fixture, so each may run in either process.
SEPARATE_FILES = ("test_whole_way.py", "test_chaos.py", "test_stops.py")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order tests, and group those of a file, for ``--dist loadgroup``."""
    order = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    for item in items:
        group = item.nodeid if item.path.name in SEPARATE_FILES else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


#: The user and the group that Debian calls nobody and nogroup.
NOBODY = 65534


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder whose owner is not root, and until the test's end the owner's rights: root may read and write everywhere."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)  # the saved id leads back
        try:
            yield Path(folder)
        finally:
            os.setresuid(0, 0, 0)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a real S3 server on a free port of this machine."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    """boto3, which the product does not use: what it lists and reads is the oracle."""
    import boto3

    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=s3_endpoint, **keys)


@pytest.fixture
def s3_bucket(s3_endpoint: str, s3_client: Any) -> Bucket:
    """An empty bucket of that server."""
    name = f"lab-{uuid4().hex[:8]}"
    s3_client.create_bucket(Bucket=name)
    return Bucket(f"s3://{name}", StoreOptions(endpoint_url=s3_endpoint, access_key="k", secret_key="s", region="us-east-1"))
