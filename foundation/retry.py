"""Retrying: which failures of a store are temporary, and asking again until it answers."""

from __future__ import annotations

import errno
import logging
import random
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from crossdim.storage_schema.errors import UnreachableError

LONGEST_WAIT_S = 5.0
#: Answers of a store that is overloaded, or of a gateway whose store is away.
TRANSIENT_STATUS = frozenset({429, 500, 502, 503, 504})
STORE_FULL_STATUS = 507

_LOG = logging.getLogger(__name__)
_JITTER = random.Random()  # its own generator: the global one belongs to whoever seeds it
Answer = TypeVar("Answer")


def ask_until_answered(ask: Callable[[bool], Answer], place: str, patience_s: float) -> Answer:
    """Call ``ask``, and call it again, with growing waits, while the store does not answer.

    Args:
        ask: gets whether an earlier attempt remained without an answer; that attempt may have done its work all the same.
        place: URL, for the log.
        patience_s: seconds after which the error is raised; 0 tries once. An attempt under way is not cut off: READ_TIMEOUT_S
            may be added, and for an upload the time that its bytes take.

    Returns:
        What ``ask`` returned.

    Raises:
        UnreachableError: of the last attempt.
    """
    started, again, wait_s = time.monotonic(), False, 1.0
    while True:
        try:
            return ask(again)
        except UnreachableError as error:
            tried_s = time.monotonic() - started
            if not patience_s:
                raise
            if tried_s >= patience_s:
                raise UnreachableError(f"{error} (tried for {tried_s:.0f} s)") from error
            if not again:
                _LOG.warning("%s does not answer, asking again for up to %.0f s: %s", place, patience_s - tried_s, error)
        time.sleep(min(_JITTER.uniform(0.5, 1.0) * wait_s, patience_s - tried_s))
        again, wait_s = True, min(2 * wait_s, LONGEST_WAIT_S)


def client_errors() -> tuple[type[Exception], ...]:
    """Errors that store clients raise, of those clients that are in use. A ValueError means an endpoint that is not a URL."""
    return (
        OSError,
        ValueError,
        *error_classes("botocore.exceptions", "BotoCoreError", "ClientError"),
        *error_classes("botocore.parsers", "ResponseParserError"),
        *error_classes("aiohttp", "ClientError"),
    )


def _silences() -> tuple[type[Exception], ...]:
    """Errors that mean: no answer, or not a whole one.

    Seen with s3fs 2026.9: EndpointConnectionError (refused, no such name), ConnectionClosedError and ClientOSError (reset),
    ReadTimeoutError and ConnectTimeoutError (stalled), FSTimeoutError (stalled while sending; a TimeoutError),
    ClientPayloadError (body cut short; it comes as aiohttp raises it).
    """
    of_s3 = error_classes("botocore.exceptions", "ConnectionError", "HTTPClientError", "IncompleteReadError")
    return (ConnectionError, TimeoutError, *of_s3, *error_classes("aiohttp", "ClientConnectionError", "ClientPayloadError"))


def error_classes(module: str, *names: str) -> tuple[type[Exception], ...]:
    """Error classes of a client, if the client is in use.

    Args:
        module: that defines them.
        *names: of the classes.

    Returns:
        The classes; none if the module is not imported, or another thread is still importing it.
    """
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later. An untrusted certificate is not transient."""
    causes = list(causes_of(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return False
    return isinstance(error, _silences()) or not TRANSIENT_STATUS.isdisjoint(map(_status, causes))


def is_full(error: Exception) -> bool:
    """Whether the store or disk has no space left."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or STORE_FULL_STATUS in map(_status, causes_of(error))


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors that caused it; s3fs turns answers of a store into an OSError, which they caused."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of botocore carries."""
    response = getattr(error, "response", None)
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
