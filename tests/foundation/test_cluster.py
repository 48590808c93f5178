"""A Ray session: joined where there is a cluster and it lets us in, started and stopped where there is none."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossdim.foundation.cluster import ENVIRONMENT
from crossdim.foundation.ray_auth import PATIENCE_S

pytestmark = pytest.mark.ray

#: Joins one cluster after another in one process, and says of each what came of it.
SCRIPT = """
import os, sys
from crossdim.foundation.cluster import ray_session
from crossdim.storage_schema.errors import CrossdimError
said = os.environ.get("RAY_AUTH_MODE")
for address in sys.argv[1:]:
    try:
        with ray_session(address or None, num_cpus=1):
            import ray
            assert ray.get(ray.remote(lambda: 7).remote()) == 7
            print("joined", os.environ["RAY_AUTH_MODE"], ray.get_runtime_context().gcs_address, sep="|")
    except CrossdimError as error:
        print(type(error).__name__, error, sep="|")
    import ray
    assert not ray.is_initialized()
    assert os.environ.get("RAY_AUTH_MODE") == said
"""
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 * 2**20})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
#: What nobody needs to set.
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}


@dataclass(frozen=True, kw_only=True)
class Running:
    """A cluster that somebody else runs, and the home of somebody who holds its token."""

    address: str
    home: Path

    @property
    def token(self) -> Path:
        return self.home / ".ray" / "auth_token"


def _home(folder: Path, token: str | None) -> Path:
    """The home of a user with this token, or with none."""
    (folder / ".ray").mkdir(parents=True)
    if token:
        (folder / ".ray" / "auth_token").write_text(token)
    return folder


@contextlib.contextmanager
def _running(mode: str, home: Path) -> Iterator[Running]:
    environment = CLEAN | {"HOME": str(home), "RAY_AUTH_MODE": mode, "RAY_USAGE_STATS_ENABLED": "0"}
    line = [sys.executable, "-c", CLUSTER]
    process = subprocess.Popen(
        line, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Running(address=process.stdout.readline().strip(), home=home)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that takes no token."""
    with _running("disabled", _home(tmp_path_factory.mktemp("open"), None)) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that wants its token."""
    with _running("token", _home(tmp_path_factory.mktemp("guarded"), secrets.token_hex(32))) as running:
        yield running


@pytest.fixture
def nobody(tmp_path: Path) -> Path:
    """The home of a user who has never held a token, and does not get one from us."""
    home = _home(tmp_path / "nobody", None)
    yield home
    assert list((home / ".ray").iterdir()) == []


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """The home of a user of some other cluster."""
    return _home(tmp_path / "stranger", secrets.token_hex(32))


def _sessions(*addresses: str, home: Path, before: tuple[str, ...] = (), **environment: str) -> list[tuple[str, ...]]:
    """What came of each address, for this user; Ray itself says nothing."""
    line = [*before, sys.executable, "-c", SCRIPT, *addresses]
    done = subprocess.run(
        line, env=CLEAN | {"HOME": str(home)} | environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [tuple(line.split("|", 2)) for line in done.stdout.splitlines()]


def _joined(cluster: Running, mode: str = "disabled") -> tuple[str, ...]:
    return ("joined", mode, cluster.address)


def _refused(address: str, home: Path, **environment: str) -> str:
    """The one sentence for an address that cannot be joined."""
    ((kind, sentence),) = _sessions(address, home=home, **environment)
    assert kind == "RunError"
    assert "\n" not in sentence
    return sentence


def test_a_session_is_started_here_when_no_cluster_is_named(cluster: Running, guarded: Running) -> None:
    """Also beside clusters of somebody else's on the same machine, which Ray itself would join unasked."""
    _, (outcome, mode, address) = _sessions(guarded.address, "", home=guarded.home)

    assert (outcome, mode) == ("joined", "token")
    assert address not in {cluster.address, guarded.address}


def test_a_named_cluster_is_joined_and_left_running(cluster: Running, nobody: Path) -> None:
    assert _sessions(cluster.address, cluster.address, home=nobody) == [_joined(cluster)] * 2


def test_a_job_of_a_cluster_joins_it_by_itself(cluster: Running, nobody: Path) -> None:
    """Ray tells its jobs where they are through RAY_ADDRESS; starting a second cluster there would be an error."""
    assert _sessions("", home=nobody, RAY_ADDRESS=cluster.address) == [_joined(cluster)]


def test_a_cluster_is_asked_whether_it_wants_the_token_that_is_here(cluster: Running, guarded: Running) -> None:
    """The user of a guarded cluster sets nothing, neither there nor at one that takes no token."""
    found = _sessions(guarded.address, cluster.address, guarded.address, home=guarded.home)

    assert found == [_joined(guarded, "token"), _joined(cluster), _joined(guarded, "token")]


def test_a_token_is_found_wherever_ray_looks_for_one(guarded: Running, nobody: Path, stranger: Path) -> None:
    """Also before one in the home that belongs to another cluster."""
    joined = [_joined(guarded, "token")]

    assert _sessions(guarded.address, home=nobody, RAY_AUTH_TOKEN_PATH=str(guarded.token)) == joined
    assert _sessions(guarded.address, home=stranger, RAY_AUTH_TOKEN=guarded.token.read_text()) == joined


def test_a_cluster_that_wants_a_token_is_one_sentence_for_who_has_none(guarded: Running, nobody: Path, stranger: Path) -> None:
    """Ray looks for such a cluster for 20 s, and then says that there is none."""
    wants = f"the Ray cluster at {guarded.address} wants a token, and "
    remedy = ": put the cluster's into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
    absent = str(nobody / "absent")

    assert _refused(guarded.address, nobody) == f"{wants}none is found here{remedy}"
    assert _refused(guarded.address, stranger) == f"{wants}the one found here is another{remedy}"
    by_path = _refused(guarded.address, guarded.home, RAY_AUTH_TOKEN_PATH=absent)
    assert by_path == f"{wants}RAY_AUTH_TOKEN_PATH={absent} holds none{remedy}"


def test_what_the_user_has_set_stays_and_is_named_where_it_cannot_work(cluster: Running, guarded: Running, nobody: Path) -> None:
    """A mode that somebody has set may be a rule of their organisation: that it does not fit is an error, and nothing changes."""
    kept = _refused(guarded.address, guarded.home, RAY_AUTH_MODE="disabled")
    assert (
        kept
        == f"the Ray cluster at {guarded.address} wants a token, and RAY_AUTH_MODE=disabled keeps it back: unset RAY_AUTH_MODE"
    )
    asked = _refused(cluster.address, nobody, RAY_AUTH_MODE="token")
    assert asked.startswith(f"the Ray cluster at {cluster.address} takes no token, RAY_AUTH_MODE=token asks for one, and none is")
    assert _sessions(cluster.address, home=guarded.home, RAY_AUTH_MODE="token") == [_joined(cluster, "token")]


def test_a_cluster_that_does_not_answer_is_one_sentence(nobody: Path) -> None:
    """Ray itself tries for 80 s and ends with a stack of calls."""
    with socket.socket() as held:  # bound and not listening: nobody else can open the port meanwhile
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        sentence = _refused(address, nobody)

    assert sentence.startswith("no Ray cluster answers at ")
    assert f":{address.split(':')[1]} (DEADLINE_EXCEEDED, waiting at most {PATIENCE_S} s)" in sentence
    assert PATIENCE_S <= 20


def test_something_else_that_answers_is_no_cluster(nobody: Path) -> None:
    """Addresses of jobs and of Ray's client stand in the same shell, and beside the one that is meant."""
    for address in ("http://127.0.0.1:8265", "ray://127.0.0.1:10001", "127.0.0.1"):
        ((kind, sentence),) = _sessions("", home=nobody, RAY_ADDRESS=address)
        assert kind == "UsageError"
        assert sentence.startswith(f"{address!r} (--ray-address or RAY_ADDRESS) is no address of a Ray cluster: give HOST:PORT")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="only root may take processes out of sight")
def test_a_machine_outside_the_cluster_is_told_to_hand_its_work_in(cluster: Running, nobody: Path) -> None:
    """Without sight of the cluster's processes, as on a laptop that reaches its head. Ray looks for them for a minute."""
    apart = ("unshare", "--pid", "--fork", "--mount-proc")
    ((kind, sentence),) = _sessions(cluster.address, home=nobody, before=apart)

    assert kind == "RunError"
    assert "no Ray runs on this machine" in sentence
    assert "`ray job submit`" in sentence


def test_ray_knows_the_settings_of_training() -> None:
    """A misspelt one is ignored without a word; a wait below Ray's renewal of its view gives up on machines that are there."""
    from ray.data._internal.cluster_autoscaler import default_autoscaling_coordinator as coordinator
    from ray.train.v2._internal import constants

    ours = {name for name in ENVIRONMENT if name.startswith("RAY_TRAIN_")}
    assert len(ours) == 3
    assert ours <= set(constants.ENV_VARS_TO_PROPAGATE)
    wait = float(ENVIRONMENT["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"])
    assert coordinator._AutoscalingCoordinatorActor.TICK_INTERVAL_S < wait < constants.DEFAULT_WORKER_GROUP_START_TIMEOUT_S
