"""Patience: which failures of a store mean "not now", and asking again until it answers."""

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
_JITTER = random.Random()  # its own: the global generator belongs to whoever seeds it
Answer = TypeVar("Answer")


def patiently(ask: Callable[[bool], Answer], place: str, patience_s: float) -> Answer:
    """What ``ask`` answers; while the store does not answer it is asked again, with growing waits.

    Args:
        ask: is told whether an earlier attempt stayed without an answer; that may have done its work all the same.
        place: URL, for the log.
        patience_s: after which the error is raised. An attempt under way is not cut off: READ_TIMEOUT_S may come on top,
            for an upload also what its bytes may take.

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
    """What store clients raise; only those whose client is in use. A ValueError is an endpoint that is no URL."""
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
    """Errors of a client that is in use; none of one that another thread is just importing."""
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))


def is_transient(error: Exception) -> bool:
    """Whether the same question may be answered later. A certificate that is not trusted stays so."""
    causes = list(causes_of(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return False
    return isinstance(error, _silences()) or not TRANSIENT_STATUS.isdisjoint(map(_status, causes))


def is_full(error: Exception) -> bool:
    """Whether there is no room left."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or STORE_FULL_STATUS in map(_status, causes_of(error))


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was made from; s3fs turns answers of a store into an OSError, behind which they stand."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of botocore carries."""
    response = getattr(error, "response", None)
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
