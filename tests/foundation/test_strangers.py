"""Nobody is let into a session that we start: whoever reaches a Ray session runs code in it, as its user."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest

from tests.listening import LOOPBACK, command_line, listening

pytestmark = pytest.mark.ray

#: A session as every verb holds one, with a worker; prints its address, this machine's, and the ids of all its processes.
SESSION = """
import os, sys
from crossdim.foundation.cluster import ray_session
with ray_session(num_cpus=1):
    import psutil, ray  # Ray carries it
    from ray.util import get_node_ip_address
    ray.get(ray.remote(lambda: 7).remote())
    pids = [process.pid for process in psutil.Process().children(recursive=True)]
    print(ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], os.getpid(), *pids, flush=True)
    sys.stdin.read()
"""
STRANGER = """
import sys, ray
ray.init(sys.argv[1])
print("let in", ray.get(ray.remote(lambda: 7).remote()), flush=True)
"""
#: What a stranger's environment is, and ours before the session.
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"RAY_USAGE_STATS_ENABLED": "0"}
#: A stranger that is let in is in after 2 seconds; one that is not is kept waiting by Ray for minutes.
PATIENCE_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session of ours: where its head listens, its token, and its processes."""

    address: str
    token: str
    pids: tuple[int, ...]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    line = [sys.executable, "-c", SESSION]
    with subprocess.Popen(line, env=CLEAN, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address, token, *pids = process.stdout.readline().split()
        yield Session(address=address, token=token, pids=tuple(map(int, pids)))
        process.stdin.close()
        assert process.wait(60) == 0


def routable_address() -> str:
    """An address of this machine that others reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("203.0.113.1", 9))  # sends nothing
        found: str = probe.getsockname()[0]
        if not found.startswith("127."):
            return found
    pytest.skip("this machine has no address but the loopback one")


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux's /proc")
def test_every_process_of_a_session_listens_on_the_loopback_interface_alone(session: Session) -> None:
    """Head, raylet, agents, workers and driver; Ray itself listens on all interfaces."""
    found = {pid: listening(pid) for pid in session.pids if command_line(pid)}

    assert any(port == session.port for where in found.values() for _, port in where)
    assert {host for where in found.values() for host, _ in where} <= set(LOOPBACK)


def test_a_stranger_cannot_join_over_the_network(session: Session) -> None:
    """With the same user, home and Ray, and the right port."""
    line = [sys.executable, "-c", STRANGER, f"{routable_address()}:{session.port}"]
    with subprocess.Popen(line, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as stranger:
        try:
            out, _ = stranger.communicate(timeout=PATIENCE_S)
            assert stranger.returncode != 0
        except subprocess.TimeoutExpired:
            stranger.kill()
            out, _ = stranger.communicate()
    assert "let in" not in out


def alive(address: str, token: str | None) -> grpc.StatusCode:
    """What the head answers to a plain gRPC call."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def test_other_users_of_this_machine_need_the_token_of_the_session(session: Session) -> None:
    assert alive(session.address, None) is grpc.StatusCode.UNAUTHENTICATED
    assert alive(session.address, "0" * 64) is grpc.StatusCode.UNAUTHENTICATED
    assert alive(session.address, session.token) is grpc.StatusCode.OK
    assert alive(f"{routable_address()}:{session.port}", session.token) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux's /proc")
def test_the_token_stands_where_only_its_user_can_read_it(session: Session) -> None:
    """In environments of processes; a command line is read by everybody."""
    lines = [command_line(pid) for pid in session.pids]
    assert any("gcs_server" in line for line in lines)
    assert not any(session.token in line for line in lines)
