"""``crossdim doctor --ray-address``: each machine of a real cluster answers; a closed address and a lack of Ray are failures."""

from __future__ import annotations

import json
import socket

import pytest

from tests.system import nodes
from tests.system.conftest import crossdim
from tests.system.test_extras import run_without

pytestmark = nodes.MARKS


def _of_ray(text: str) -> list[dict[str, str]]:
    return [one for one in json.loads(text)["checks"] if one["check"].startswith("Ray ")]


def test_each_machine_of_a_cluster_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the head, which has no processor to spare."""
    with nodes.cluster(monkeypatch) as found:
        found.add()
        cluster, *machines = _of_ray(crossdim("doctor", "--ray-address", found.address, "--json"))
    assert cluster["level"] == "ok"
    assert cluster["found"] == f"{found.address} was joined, 2 machines; it takes no token"
    assert [one["level"] for one in machines] == ["ok", "ok"]
    assert all("as here; " in one["found"] and "in /dev/shm" in one["found"] for one in machines)


def test_a_closed_address_is_a_failure() -> None:
    with socket.socket() as held:  # bound and not listening: nobody else can open the port meanwhile
        held.bind(("127.0.0.1", 0))
        [cluster] = _of_ray(crossdim("doctor", "--ray-address", f"127.0.0.1:{held.getsockname()[1]}", "--json", expect=(2,)))
    assert cluster["level"] == "failure"
    assert cluster["found"].startswith("no Ray cluster answers at ")
    assert cluster["remedy"].startswith("ask the cluster itself: ray status --address 127.0.0.1:")


def test_without_ray_no_cluster_is_joined() -> None:
    done = run_without("ray", "doctor", "--ray-address", "auto", "--json")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    [cluster] = _of_ray(done.stdout)
    assert (cluster["level"], cluster["found"]) == ("failure", "--ray-address needs Ray: pip install 'crossdim[ray]'")
