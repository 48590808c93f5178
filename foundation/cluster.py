"""A Ray session: joins the given cluster, or starts a small one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from crossdim.foundation.processes import find_descendants, find_started_with, kill
from crossdim.foundation.ray_auth import AUTH_TOKEN, authenticate, keep_private
from crossdim.foundation.ray_needs import refuse_machine
from crossdim.foundation.ray_watch import Endpoint, watch
from crossdim.foundation.signals import hold, keep_handlers
from crossdim.storage_schema.errors import RunError, UsageError

#: Enough for rows of references and scan results: pixels never pass through Ray's object store.
OBJECT_STORE_BYTES = 200 * 2**20

#: Set before Ray is imported, so that users need no environment variable. What a user has set is kept.
ENVIRONMENT = {
    # No usage statistics are sent.
    "RAY_USAGE_STATS_ENABLED": "0",
    # A worker that asks for no GPU still sees those of its machine; --gpu decides whether they are used.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # We show one progress bar of our own, and none in a log file.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Equal lines of several workers are all shown: each says something about its worker.
    "RAY_DEDUP_LOGS": "0",
    # How often a run looks for workers that died, were lost or have reported; Ray's 2 s are waited out at each of them.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After a machine is lost Ray Train waits so long for it to come back. Ray's 60 s are time thrown away; but its picture of the
    # cluster is renewed every 20 s, and below that it would give up on machines that are there.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "25",
    # How often a run asks whether one of its machines has been told to go: notice is short, and Ray's 5 s are a part of it.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}

#: After 60 s without the head of a cluster that it joined Ray ends this process at once, with the exit code of wrong use.
HEAD_PATIENCE_S = 50.0


@contextlib.contextmanager
def ray_session(address: str | None = None, *, num_cpus: int | None = None, log_to_driver: bool = False) -> Iterator[None]:
    """Keep a Ray session open inside a ``with`` block.

    A session that is started here listens on the loopback interface only, and takes a token that only its own processes know:
    whoever can reach a Ray session can run code in it. Whether a cluster that is joined needs a token is asked of the cluster;
    Ray
    itself finds the user's token (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token). A RAY_AUTH_MODE that the user has
    set is
    respected.

    Args:
        address: of a running cluster, HOST:PORT ("auto" finds the one of this machine). None joins the cluster whose job this
            process is (Ray sets RAY_ADDRESS for its jobs), and otherwise starts one here and stops it afterwards.
        num_cpus: logical CPUs of a session started here; None takes all of the machine's.
        log_to_driver: whether workers' output is printed here.

    Yields:
        Nothing; Ray is initialised inside the block. A session that is already open is used and left open.

    Raises:
        UsageError: if the address is not one of a cluster.
        RunError: if the cluster does not answer, or does not accept this process.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.pop("RAY_ADDRESS", None)  # an empty value is an address that Ray cannot parse
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    # "local": without it Ray would join the cluster that was last started on this machine, by any user.
    found = _find_cluster(address or "local")
    with authenticate(found, address or found) if found else keep_private():
        try:
            with hold(), keep_handlers():  # interrupted here, Ray would leave processes behind
                if found:
                    _join(found, log_to_driver)
                else:
                    _start(num_cpus, log_to_driver)
            with watch(_find_endpoints(HEAD_PATIENCE_S if found else 0.0), lambda: None if found else _end_session()):
                yield
        finally:
            with hold():
                ray.shutdown()


def has_session() -> bool:
    """Whether a Ray session is open in this process; Ray is not imported for that."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def starts_here(address: str | None) -> bool:
    """Whether a session with this address is started on this machine rather than joined."""
    return not (address or os.environ.get("RAY_ADDRESS"))


def largest_count(resource: str) -> int:
    """The amount of a resource that the cluster of the open session has, or can add by itself."""
    import ray
    from ray._private.state import state

    could: Mapping[str, float] = state.get_max_resources_from_cluster_config() or {}
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(max(could.get(resource, 0), have.get(resource, 0)))


def count_free(resource: str) -> tuple[int, int] | None:
    """How much of a resource is free, and how much there is, on the cluster of the open session; None if none is open.

    Args:
        resource: such as ``GPU``.
    """
    from ray._private.state import state  # the public functions would start a session if this one has just ended
    from ray.exceptions import RayError

    try:
        free: Mapping[str, float] = state.available_resources()  # type: ignore[no-untyped-call]
        whole: Mapping[str, float] = state.cluster_resources()  # type: ignore[no-untyped-call]
        return int(free.get(resource, 0)), int(whole.get(resource, 0))
    except RayError:
        return None


def has_reserved(resource: str) -> bool:
    """Whether this job holds a reservation (a placement group) of a resource, on the cluster of the open session.

    Args:
        resource: such as ``GPU``.
    """
    import ray
    from ray._private.state import state
    from ray.exceptions import RayError

    try:
        job = ray.get_runtime_context().get_job_id()
        groups: Mapping[str, Mapping[str, Any]] = state.placement_group_table()  # type: ignore[no-untyped-call]
    except RayError:  # the session has just ended
        return False
    # The number of a group ends with that of its job.
    own = [group for number, group in groups.items() if number.endswith(job) and group["state"] == "CREATED"]
    return any(bundle.get(resource) for group in own for bundle in group["bundles"].values())


def _find_endpoints(head_patience_s: float) -> list[Endpoint]:
    """The head of the cluster, and the raylet that this process is connected to."""
    import ray

    context = ray.get_runtime_context()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    (here,) = (node for node in nodes if node["NodeID"] == context.get_node_id())
    head, raylet = context.gcs_address, f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}"
    return [
        Endpoint(name="the head of the cluster", address=head, patience_s=head_patience_s),
        Endpoint(name=f"the raylet of this machine (cluster {head})", address=raylet, patience_s=0.0),
    ]


def _end_session() -> None:
    """Kill all processes of the session that this process started."""
    kill({*find_started_with(AUTH_TOKEN, os.environ[AUTH_TOKEN]), *find_descendants(os.getpid())})


def _start(num_cpus: int | None, log_to_driver: bool) -> None:
    import ray

    refuse_machine()
    here: dict[str, Any] = {"num_cpus": num_cpus, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        ray.init("local", log_to_driver=log_to_driver, logging_level=logging.WARNING, **here)
    except Exception as error:  # of whatever kind: Ray has many for the same few causes
        _end_session()
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise RunError(
            f"Ray does not start on this machine: {said}. It needs room and rights to write in /tmp (or RAY_TMPDIR), "
            "shared memory in /dev/shm, and limits (ulimit -n, -u) that let it start some 20 processes"
        ) from error


def _join(address: str, log_to_driver: bool) -> None:
    import ray
    from ray._private.services import find_node_ids

    if not find_node_ids():  # type: ignore[no-untyped-call]  # ray.init would look for one for a minute
        raise RunError(
            f"the Ray cluster at {address} answers, but no Ray runs on this machine, and the verbs run on machines of the "
            f"cluster: hand the command in with `ray job submit`, or let this machine join: ray start --address={address}"
        )
    try:
        ray.init(address, log_to_driver=log_to_driver, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise RunError(f"the Ray cluster at {address} answers, but this process cannot join it: {said}") from error


def _find_cluster(address: str) -> str | None:
    """The cluster's HOST:PORT; None if a session is to be started here."""
    from ray._private.services import canonicalize_bootstrap_address  # what ray.init does with an address

    try:
        found: str | None = canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise RunError(f"no Ray cluster runs on this machine ({address}); leave the address out to start one here") from None
    except ValueError:
        raise UsageError(
            f"{address!r} (--ray-address or RAY_ADDRESS) is no address of a Ray cluster: give HOST:PORT, such as 10.0.0.10:6379, "
            "or auto; what begins with http:// takes jobs, through `ray job submit`"
        ) from None
    return found
