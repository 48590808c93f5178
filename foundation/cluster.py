"""A Ray session: join the cluster that is named, or start a small one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from typing import Any

from storage_schema.errors import RunError, UsageError

#: Enough for rows of references and verdicts: pixels never travel through Ray's object store.
OBJECT_STORE_BYTES = 200 * 2**20

#: Set before Ray is imported, so that a user needs no environment variable. What the user has set stays.
ENVIRONMENT = {
    # Nothing is sent to anybody.
    "RAY_USAGE_STATS_ENABLED": "0",
    # A worker that asks for no GPU still sees those of its machine: whether they are used is decided by --gpu.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ours is the one bar, and a log file holds none.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Lines of several workers that look alike are several facts.
    "RAY_DEDUP_LOGS": "0",
    # How often a run looks for workers that died, were lost or have reported; Ray's 2 s are waited out at each of them.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After a machine is lost Ray Train waits so long for it to come back. Ray's 60 s are time thrown away; but its picture of the
    # cluster is renewed every 20 s, and below that it would give up on machines that are there.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "25",
    # How often a run asks whether one of its machines has been told to go: notice is short, and Ray's 5 s are a part of it.
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}

AUTH_MODE = "RAY_AUTH_MODE"
AUTH_TOKEN = "RAY_AUTH_TOKEN"
#: Set to 0, Ray takes the loopback address for this machine's, as it does by itself on macOS and Windows, and every process of
#: a session listens there alone. Ray's other way, ``_node_ip_address``, makes a loopback address a routable one again.
ROUTABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

#: A head that restarts is back within this; one that is away for longer is away.
PATIENCE_S = 15


@contextlib.contextmanager
def ray_session(address: str | None = None, *, num_cpus: int | None = None, log_to_driver: bool = False) -> Iterator[None]:
    """Hold a Ray session open.

    A session that is started here listens on the loopback interface alone, and takes a token that only its own processes know:
    whoever can reach a Ray session runs code in it. Whether a cluster that is joined wants a token is asked of the cluster; where
    the user's token lies, Ray knows (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token). A RAY_AUTH_MODE that the user has
    set stays.

    Args:
        address: of a running cluster, HOST:PORT ("auto" finds the one of this machine); None takes the cluster whose job we are
            (Ray names it to its jobs), and otherwise starts one here and stops it afterwards.
        num_cpus: logical CPUs of a session started here; None takes the machine's.
        log_to_driver: whether what workers print is printed here.

    Raises:
        UsageError: if the address is none of a cluster.
        RunError: if the cluster does not answer, or does not let us in.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.pop("RAY_ADDRESS", None)  # set to nothing, it is an address that Ray cannot read
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    # "local": without it Ray would join whatever cluster was last started on this machine, whoever started it.
    found = _found(address or "local")
    with _same_mode(found) if found else _private():
        if found:
            _join(found, log_to_driver)
        else:
            _start(num_cpus, log_to_driver)
        try:
            yield
        finally:
            ray.shutdown()


def _start(num_cpus: int | None, log_to_driver: bool) -> None:
    import ray

    here: dict[str, Any] = {"num_cpus": num_cpus, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    ray.init("local", log_to_driver=log_to_driver, logging_level=logging.WARNING, **here)


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


def _found(address: str) -> str | None:
    """Where the cluster listens, as HOST:PORT; None for one that is still to be started here."""
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


@contextlib.contextmanager
def _same_mode(address: str) -> Iterator[None]:
    """Hold Ray's mode of authentication at what the cluster wants."""
    with _environment(AUTH_MODE):  # the next cluster of this process may want another
        _agree(address, os.environ.get(AUTH_MODE))
        yield


@contextlib.contextmanager
def _private() -> Iterator[None]:
    """Keep others out of the session that is started meanwhile.

    The token is handed on through the environment. Ray by itself would write one into the user's home, which locks later
    clusters of the same user out of each other.
    """
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    routable = ray_constants.ENABLE_RAY_CLUSTER
    with _environment(AUTH_MODE, AUTH_TOKEN, ROUTABLE):
        os.environ[ROUTABLE] = "0"
        ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray was imported
        os.environ[AUTH_TOKEN] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()
        _set_mode(os.environ.get(AUTH_MODE, "token"))
        try:
            yield
        finally:
            ray_constants.ENABLE_RAY_CLUSTER = routable
    AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _environment(*names: str) -> Iterator[None]:
    """Put these variables back afterwards."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _set_mode(mode: str) -> None:
    from ray._raylet import Config  # type: ignore[attr-defined]

    os.environ[AUTH_MODE] = mode
    Config.initialize("")  # Ray looks at its variables when it is imported; it does the same itself where it changes the mode


def _agree(address: str, said: str | None) -> None:
    """Set the mode that the cluster wants, or say why the user's cannot work."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    _set_mode("disabled")
    wanted = _refuses(address)
    _set_mode(said or ("token" if wanted else "disabled"))
    where = f"the Ray cluster at {address}"
    if not is_token_auth_enabled():
        if wanted:
            raise RunError(f"{where} wants a token, and {AUTH_MODE}={said} keeps it back: unset {AUTH_MODE}")
        return
    lack = _lack_of_token()
    if lack and not wanted:  # with any token at all it would let us in
        raise RunError(f"{where} takes no token, {AUTH_MODE}={said} asks for one, and {lack}: unset {AUTH_MODE}")
    if wanted and (lack or _refuses(address)):
        remedy = "put the cluster's into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        raise RunError(f"{where} wants a token, and {lack or 'the one found here is another'}: {remedy}")


def _lack_of_token() -> str | None:
    """Why there is no token to send, if there is none."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        found = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError:
        return f"RAY_AUTH_TOKEN_PATH={os.environ.get('RAY_AUTH_TOKEN_PATH')} holds none"
    return None if found else "none is found here"


def _refuses(address: str) -> bool:
    """Whether the cluster turns us away in the mode that is set.

    Asked before ``ray.init``, which tells a wrong token from no cluster only in its own log, after 20 to 80 s.
    """
    import grpc  # type: ignore[import-untyped]
    from ray._private.grpc_utils import init_grpc_channel

    with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        alive = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive", bytes, bytes)
        try:
            alive(b"", timeout=PATIENCE_S, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return True
            raise RunError(
                f"no Ray cluster answers at {address} ({error.code().name}, waiting at most {PATIENCE_S} s): see that it is up, "
                "and that this is the host and port of its head"
            ) from None
    return False
