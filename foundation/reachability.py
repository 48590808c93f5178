"""One small request to an S3 store before any work, so that a wrong address or key is reported within seconds.

Later requests wait for a store that does not answer (see ``retry``); this one does not, because a typing error is likelier.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from crossdim.foundation.location import format_location
from crossdim.foundation.retry import TRANSIENT_STATUS, is_transient
from crossdim.foundation.store_errors import MEANINGS, REGION_HEADER, describe_no_s3, explain_answer, explain_error
from crossdim.foundation.store_options import StoreOptions
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.storage_schema.names import printable

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 5
#: Time limit of the whole check: a name server has no time limit of its own.
DEADLINE_S = 9.0
#: An overloaded store is asked again for so long.
ASK_AGAIN_S = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """An HTTP status as received, and what botocore made of the answer."""

    status: int
    document: Mapping[str, Any]

    @property
    def code(self) -> str:
        """The error code of S3; the status where the error is not one of S3."""
        return str(self.document.get("Error", {}).get("Code", ""))


class _FirstAnswer(Exception):
    """Carries the first answer out of botocore, before it asks again or follows a redirect."""


@functools.cache
def check_reachable(bucket: str, options: StoreOptions) -> StoreOptions:
    """Ask a store to list one key of a bucket. The answer is cached for the process.

    Args:
        bucket: name of the bucket.
        options: how the store is reached.

    Returns:
        The options, with the region that the store names if none was given.

    Raises:
        StorageError: if the store does not answer, is not an S3 store, or refuses address or credentials; the message says what
            to do.
    """
    where = f"s3://{printable(bucket)} at {format_location(options.endpoint_url or 'AWS')}"
    answer = _run_within(DEADLINE_S, lambda: _get_first_answer(bucket, options, where), where)
    region = answer.document["ResponseMetadata"].get("HTTPHeaders", {}).get(REGION_HEADER)
    return options if options.region or not region else replace(options, region=region)


def measure_clock_skew(bucket: str, options: StoreOptions) -> float | None:
    """Compare this machine's clock with that of a store, by the Date of an answer, whatever the answer says.

    Args:
        bucket: name of the bucket.
        options: how the store is reached.

    Returns:
        Seconds by which this machine is ahead, to about one second; None if the store states no date.

    Raises:
        StorageError: if the store does not answer.
    """
    where = f"s3://{printable(bucket)} at {format_location(options.endpoint_url or 'AWS')}"
    asked = time.time()
    answer = _run_within(DEADLINE_S, lambda: _ask(bucket, options, where), where)
    here = (asked + time.time()) / 2
    stated = answer.document["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    try:
        return here - parsedate_to_datetime(stated).timestamp() if stated else None
    except ValueError:
        return None


def _get_first_answer(bucket: str, options: StoreOptions, where: str) -> _Answer:
    """The answer to a listing of one key. A refusal of rights is an answer too: other requests may be allowed."""
    until = time.monotonic() + ASK_AGAIN_S
    while (answer := _ask(bucket, options, where)).status in TRANSIENT_STATUS:
        if time.monotonic() > until:
            raise UnreachableError(
                f"{where} answers that it is overloaded or away (HTTP status {answer.status}); try again later"
            )
        time.sleep(1)
    if meaning := explain_answer(answer.document, options):
        raise StorageError(f"{where}: {meaning}")
    if answer.code == "AccessDenied" or answer.status == 403:
        return answer
    if answer.code and not answer.code.isdigit():
        message = printable(str(answer.document["Error"].get("Message", "")))
        raise StorageError(f"{where}: the store refuses a listing: {printable(answer.code)}: {message}")
    if answer.status != 200 or "Name" not in answer.document:  # which S3 always repeats
        raise StorageError(f"{where}: {describe_no_s3(f' (HTTP status {answer.status})')}")
    return answer


def _ask(bucket: str, options: StoreOptions, where: str) -> _Answer:
    from botocore.exceptions import ParamValidationError, SSLError

    try:
        _list_one(bucket, options)
    except _FirstAnswer as first:
        answer: _Answer = first.args[0]
        return answer
    except ParamValidationError as error:
        raise StorageError(f"{where}: {MEANINGS['InvalidBucketName']}") from error
    except SSLError as error:
        raise StorageError(
            f"{where} cannot be trusted: {error}; check --endpoint-url, http or https, and certificates"
        ) from error
    except Exception as error:  # of botocore, whose errors have no common class; each ends as a sentence
        if meaning := explain_error(error, options):
            raise StorageError(f"{where}: {meaning}") from error
        if is_transient(error):
            raise UnreachableError(
                f"{where} does not answer: {_describe_silence(error)}; check --endpoint-url and the network"
            ) from error
        raise StorageError(f"{where} cannot be asked: {error}; check --endpoint-url and the credentials") from error


def _describe_silence(error: Exception) -> str:
    """Why there is no answer, without the address of the request."""
    from urllib3.exceptions import NameResolutionError

    behind = getattr(error, "kwargs", {}).get("error")
    if isinstance(behind, NameResolutionError):
        return "no such host"
    return "nothing listens there" if "refused" in str(behind) else str(error)


def _list_one(bucket: str, options: StoreOptions) -> NoReturn:
    """Ask; the answer comes as :class:`_FirstAnswer`, errors of S3 included."""
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    limits = {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S, "retries": {"total_max_attempts": 1}}
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=options.endpoint_url,
        region_name=options.region,
        aws_access_key_id=options.access_key,
        aws_secret_access_key=options.secret_key,
        aws_session_token=options.session_token,
        config=Config(signature_version=UNSIGNED if options.anonymous else None, **limits),
    )

    def stop(response_dict: dict[str, Any] | None, parsed_response: dict[str, Any] | None, **_: object) -> None:
        if response_dict and parsed_response is not None:  # whose own status is 500 where a 200 was no XML
            raise _FirstAnswer(_Answer(status=response_dict["status_code"], document=parsed_response))

    client.meta.events.register("response-received.s3.ListObjectsV2", stop)
    raise AssertionError(client.list_objects_v2(Bucket=bucket, MaxKeys=1))


def _run_within(seconds: float, ask: Callable[[], _Answer], place: str) -> _Answer:
    """Call ``ask`` in a thread and return its answer; a thread that hangs is left behind."""
    found: list[_Answer] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.append(ask())
        except BaseException as error:  # raised again by the caller's thread
            failed.append(error)

    thread = threading.Thread(target=work, name="first-contact", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise UnreachableError(f"{place} does not answer within {seconds:.0f} s; check --endpoint-url and the network")
    return found[0]
