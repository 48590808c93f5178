"""What every test shares: how hard Hypothesis tries, and a server that speaks S3."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before torch is loaded: idle OpenMP threads sleep instead of taking the processor from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No deadline: a busy machine is no fault of the code. A failing example is printed so that it can be replayed elsewhere.
settings.register_profile("house", deadline=None, max_examples=60, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


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
