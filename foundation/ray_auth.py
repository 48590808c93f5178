"""Authentication with Ray: finds the mode that a joined cluster needs, and protects a session that is started here."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

from crossdim.storage_schema.errors import RunError

AUTH_MODE = "RAY_AUTH_MODE"
AUTH_TOKEN = "RAY_AUTH_TOKEN"
#: Set to 0, Ray takes the loopback address for this machine's, as it does by itself on macOS and Windows, and every process of
#: a session listens there alone. Ray's other way, ``_node_ip_address``, makes a loopback address a routable one again.
ROUTABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"

#: A head that restarts answers within this time; one that takes longer counts as gone.
PATIENCE_S = 10


@contextlib.contextmanager
def authenticate(address: str, named: str) -> Iterator[None]:
    """Set Ray's mode of authentication to what a cluster needs, inside a ``with`` block.

    Args:
        address: of the cluster, as Ray resolved it.
        named: by the user, for messages.

    Yields:
        Nothing.

    Raises:
        RunError: if the cluster does not answer, or needs a token that is not found here.
    """
    with _restore_environment(AUTH_MODE):  # the next cluster of this process may need another mode
        _agree(address, named, os.environ.get(AUTH_MODE))
        yield


@contextlib.contextmanager
def keep_private() -> Iterator[None]:
    """Keep others out of a session that is started inside the ``with`` block.

    The token is passed on through the environment. Ray by itself would write one into the user's home folder, which would lock
    later clusters of the same user out of each other.
    """
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

    routable = ray_constants.ENABLE_RAY_CLUSTER
    with _restore_environment(AUTH_MODE, AUTH_TOKEN, ROUTABLE):
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
def _restore_environment(*names: str) -> Iterator[None]:
    """Restore these variables after the ``with`` block."""
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


def _agree(address: str, named: str, said: str | None) -> None:
    """Set the mode that the cluster needs, or explain why the mode set by the user cannot work."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    _set_mode("disabled")
    wanted = _refuses(address, named)
    _set_mode(said or ("token" if wanted else "disabled"))
    where = f"the Ray cluster at {named}"
    if not is_token_auth_enabled():
        if wanted:
            raise RunError(f"{where} wants a token, and {AUTH_MODE}={said} keeps it back: unset {AUTH_MODE}")
        return
    lack = _find_token_problem()
    if lack and not wanted:  # with any token at all it would accept us
        raise RunError(f"{where} takes no token, {AUTH_MODE}={said} asks for one, and {lack}: unset {AUTH_MODE}")
    if wanted and (lack or _refuses(address, named)):
        remedy = "put the cluster's into ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        raise RunError(f"{where} wants a token, and {lack or 'the one found here is another'}: {remedy}")


def _find_token_problem() -> str | None:
    """Why there is no token to send; None if there is one."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        found = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    except AuthenticationError:
        return f"RAY_AUTH_TOKEN_PATH={os.environ.get('RAY_AUTH_TOKEN_PATH')} holds none"
    return None if found else "none is found here"


def _refuses(address: str, named: str) -> bool:
    """Whether the cluster refuses this process in the mode that is set.

    Asked before ``ray.init``, which reports a wrong token only in its own log, after 20 to 80 s.
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
                f"no Ray cluster answers at {named} ({error.code().name}, waiting at most {PATIENCE_S} s): see that it is up, "
                "and that this is the host and port of its head"
            ) from None
    return False
