"""Credentials of S3: from a file named on the command line, and from where AWS's own tools look."""

from __future__ import annotations

import configparser
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from crossdim.foundation.local_files import open_regular
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.names import printable

#: A file of credentials is a few lines; anything larger is another file.
LARGEST_FILE_BYTES = 1 << 20
#: After so long a client asks again; AWS's tools then renew what is about to expire.
ASK_AGAIN_AFTER = timedelta(minutes=10)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """Access key and secret key, and the session token of temporary credentials."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def read_credentials(path: str) -> Credentials:
    """Read a file in the form of ``~/.aws/credentials``.

    The section is that of the profile in the environment (AWS_PROFILE), else ``[default]``, else the only one.

    Raises:
        StorageError: if there is no such file, or it cannot be read. Pipes and devices are refused without waiting for them.
        UsageError: if there are no credentials in it. The message shows nothing of its content.
    """
    shown = printable(path)
    try:
        with open(open_regular(path), "rb") as file:
            others = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            text = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise StorageError(
            f"--credentials-file {shown} cannot be read: {error.strerror}; name a regular file, or a link to one"
        ) from error
    if others:
        _LOG.warning("%s may be read by other users of this machine; chmod 600 it", shown)
    sections = configparser.RawConfigParser(strict=False)
    try:
        if len(text) > LARGEST_FILE_BYTES:
            raise ValueError
        sections.read_string(text.decode())
    except (configparser.Error, ValueError):
        form = "[default], aws_access_key_id = ..., aws_secret_access_key = ..."
        raise UsageError(f"--credentials-file {shown} is none in the form of ~/.aws/credentials: {form}") from None
    return _parse_section(sections, shown)


def _parse_section(sections: configparser.RawConfigParser, shown: str) -> Credentials:
    known = sections.sections()
    name = os.environ.get("AWS_PROFILE") or ("default" if "default" in known or len(known) != 1 else known[0])
    if name not in known:
        raise UsageError(f"--credentials-file {shown} has no section [{printable(name)}]; name one of its own with AWS_PROFILE")
    section = sections[name]
    access_key, secret_key = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    if not access_key or not secret_key:
        raise UsageError(
            f"--credentials-file {shown}: section [{printable(name)}] needs aws_access_key_id and aws_secret_access_key"
        )
    return Credentials(access_key=access_key, secret_key=secret_key, session_token=section.get("aws_session_token") or None)


def find_credentials() -> Callable[[], dict[str, Any]] | None:
    """Find the credentials that AWS's tools would use here (environment, profile, instance role).

    Returns:
        A function that obstore calls for the current ones; None if there are none.
    """
    import botocore.session

    found = botocore.session.Session().get_credentials()
    if found is None:
        return None

    def current() -> dict[str, Any]:
        frozen = found.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + ASK_AGAIN_AFTER,
        }

    return current
