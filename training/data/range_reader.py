"""Range readers: bytes of an object from offset to offset + length, by the fastest client for the store.

Files are read in place, S3 through obstore, and everything else through fsspec. (Measured on loopback: obstore answers
several times more small ranges per second than s3fs.)
"""

from __future__ import annotations

import functools
import os
from datetime import timedelta
from typing import Any, ClassVar, Protocol, cast

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.credentials import find_credentials
from crossdim.foundation.forks import protect_from_forks
from crossdim.foundation.local_files import open_regular
from crossdim.foundation.location import S3_PROTOCOLS
from crossdim.foundation.store_options import CONNECT_TIMEOUT_S, IMPATIENT_READ_TIMEOUT_S, READ_TIMEOUT_S
from crossdim.storage_schema.errors import StorageError

#: Open files kept by the local client.
OPEN_FILES = 256


class RangeReader(Protocol):
    """Reads ranges of objects of a dataset. Safe to call from several threads, and in a process forked after it was opened."""

    def get(self, path: str, offset: int, length: int) -> bytes:
        """Read a range.

        Args:
            path: of the object, inside the dataset.
            offset: of the first byte.
            length: in bytes.

        Returns:
            ``length`` bytes; fewer if the object ends earlier and the reader's client does not report that.

        Raises:
            StorageError: if the store fails.
        """


class LocalRangeReader:
    """Reads ranges of files on this machine."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._open = functools.lru_cache(maxsize=OPEN_FILES)(self._open_file)

    def _open_file(self, path: str) -> _File:
        try:
            return _File(open_regular(self._bucket.full(path)))
        except OSError as error:
            raise StorageError(f"{self._bucket.where(path)}: cannot be opened: {error.strerror}") from error

    def get(self, path: str, offset: int, length: int) -> bytes:
        """Read a range of a file with one ``pread``.

        Args:
            path: of the file, inside the dataset.
            offset: of the first byte.
            length: in bytes.

        Returns:
            ``length`` bytes, or fewer if the file ends earlier.

        Raises:
            StorageError: if the file cannot be opened or read.
        """
        file = self._open(path)  # held while reading: another thread may push it out of the cache and so close it
        try:
            return os.pread(file.descriptor, length, offset)
        except OSError as error:
            raise StorageError(
                f"{self._bucket.where(path)}: reading {length} bytes at {offset} failed: {error.strerror}"
            ) from error


class _File:
    """A descriptor that is closed when it is no longer referenced."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class ObstoreRangeReader:
    """Reads ranges from S3 through obstore; in a process forked from one that used obstore, through the bucket's own client.

    Obstore has one runtime, which belongs to the process that first used it. Its threads do not exist in a forked process,
    where a read would wait for them for ever, and dropping the store for a lock that one of them may have held at the fork.
    """

    _runtime_pid: ClassVar[int | None] = None

    def __init__(self, bucket: Bucket) -> None:
        from obstore.store import S3Store

        options, (name, _, prefix) = bucket.options, bucket.root.partition("/")
        config: dict[str, Any] = {
            "endpoint": options.endpoint_url,
            "access_key_id": options.access_key,
            "secret_access_key": options.secret_key,
            "session_token": options.session_token,
            "region": options.region or ("us-east-1" if options.endpoint_url else None),
            "skip_signature": options.anonymous or None,
        }
        # Left to itself obstore knows the environment but no profiles.
        provider = None if options.access_key or options.anonymous else find_credentials()
        self._bucket = bucket
        self._store = S3Store(
            name,
            prefix=prefix or None,
            config=cast(Any, {k: v for k, v in config.items() if v is not None}),
            client_options={
                "allow_http": True,
                "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
                "timeout": f"{READ_TIMEOUT_S if options.patience_s else IMPATIENT_READ_TIMEOUT_S}s",
            },
            credential_provider=cast(Any, provider),
            # Obstore's default is to retry for three minutes, in which nothing would be reported.
            retry_config={"retry_timeout": timedelta(seconds=CONNECT_TIMEOUT_S)},
        )
        protect_from_forks(self)

    def get(self, path: str, offset: int, length: int) -> bytes:
        """Read a range with one GET; retried by obstore if S3 asks for it, then by the bucket for as long as its options say.

        Args:
            path: of the object, inside the dataset.
            offset: of the first byte.
            length: in bytes.

        Returns:
            ``length`` bytes.
        """
        if ObstoreRangeReader._runtime_pid is None:
            ObstoreRangeReader._runtime_pid = os.getpid()
        found = self._get(path, offset, length) if ObstoreRangeReader._runtime_pid == os.getpid() else None
        return self._bucket.read_range(path, offset, length) if found is None else found

    def _get(self, path: str, offset: int, length: int) -> bytes | None:
        """The range; None if the bucket should retry, whose client tells by type whether a store is silent or refuses.

        Seen with obstore 0.12: a GenericError is refused, reset, stalled, no such name, 429, 5xx, cut short, and 400, 416 too.
        """
        from obstore.exceptions import BaseError, GenericError

        try:
            return bytes(self._store.get_range(path, start=offset, length=length))
        except (BaseError, OSError) as error:
            if isinstance(error, GenericError) and self._bucket.options.patience_s:
                return None
            message = str(error).partition("\n\nDebug source")[0]
            advice = "; check endpoint, network and store" if isinstance(error, GenericError) else ""
            raise StorageError(
                f"{self._bucket.where(path)}: reading {length} bytes at {offset} failed: {message}{advice}"
            ) from error


class FsspecRangeReader:
    """Reads ranges from any store that fsspec knows."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def get(self, path: str, offset: int, length: int) -> bytes:
        """Read a range with one request of fsspec.

        Args:
            path: of the object, inside the dataset.
            offset: of the first byte.
            length: in bytes.

        Returns:
            ``length`` bytes.
        """
        return self._bucket.read_range(path, offset, length)


def _is_known_to_obstore(root: str) -> bool:
    """Whether obstore accepts such a prefix; it refuses empty names, ``.``, ``..`` and control characters, which S3 allows."""
    return all(part not in ("", ".", "..") and not any(c < " " or c == "\x7f" for c in part) for part in root.split("/"))


def open_range_reader(bucket: Bucket) -> RangeReader:
    """The range reader for a dataset."""
    if bucket.is_local:
        return LocalRangeReader(bucket)
    if bucket.protocol in S3_PROTOCOLS and _is_known_to_obstore(bucket.root):
        try:
            return ObstoreRangeReader(bucket)
        except ImportError:  # obstore is part of the s3 extra; s3fs alone works, slower
            return FsspecRangeReader(bucket)
    return FsspecRangeReader(bucket)
