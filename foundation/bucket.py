"""Bucket: a folder of objects behind any fsspec URL, with atomic writes and errors in sentences."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from foundation.patience import Answer, client_errors, is_full, is_transient, patiently
from storage_schema.errors import StorageError, UnreachableError

#: Names of half-written local files start so; listings leave them out.
TEMPORARY_PREFIX = ".crossdim-tmp-"
S3_PROTOCOLS = ("s3", "s3a")
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
#: Sending an object may take READ_TIMEOUT_S and its bytes at this rate; a store that takes longer does not answer. Ours.
SLOWEST_BYTES_PER_S = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions:
    """How to reach a store. Empty fields leave the choice to the usual places (profile, instance role, environment).

    Attributes:
        patience_s: how long a store that does not answer is asked again before that is an error. Files are never waited for.
    """

    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    region: str | None = None
    anonymous: bool = False
    patience_s: float = 0.0

    def filesystem_arguments(self, protocol: str) -> dict[str, Any]:
        """Keyword arguments for the fsspec filesystem of ``protocol``."""
        if protocol not in S3_PROTOCOLS:
            return {}
        return {
            "key": self.access_key,
            "secret": self.secret_key,
            "anon": self.anonymous,
            "use_listings_cache": False,  # what another process wrote since must be seen
            "endpoint_url": self.endpoint_url,
            "client_kwargs": {"region_name": self.region} if self.region else {},
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S,
                # Who has patience asks again itself: stalled, a client with retries of its own may not be heard of for minutes.
                "retries": {"total_max_attempts": 1 if self.patience_s else 4, "mode": "standard"},
            },
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object of a listing; ``path`` is relative to the bucket's root."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """A root URL and how to reach it. A value: it travels to workers and opens its store there."""

    url: str
    options: StoreOptions = field(default_factory=StoreOptions)

    @property
    def protocol(self) -> str:
        """The URL's scheme; ``file`` for a plain path."""
        return self.url.split("://", 1)[0] if "://" in self.url else "file"

    @property
    def is_local(self) -> bool:
        """Whether objects are files of this machine."""
        return self.protocol in ("file", "local")

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem; fsspec keeps one instance per process and options."""
        try:
            filesystem = fsspec.filesystem(self.protocol, **self.options.filesystem_arguments(self.protocol))
        except (ValueError, ImportError) as error:
            raise StorageError(f"{self.url}: no store speaks {self.protocol}:// here ({error})") from error
        if self.options.patience_s and self.protocol in S3_PROTOCOLS:
            filesystem.retries = 1  # around each of botocore's attempts s3fs makes five; no argument sets it
        return filesystem

    @property
    def root(self) -> str:
        """The root as the filesystem names it: an absolute folder, or bucket and prefix."""
        return str(type(self.filesystem)._strip_protocol(self.url)).rstrip("/")

    def at(self, path: str) -> Bucket:
        """A folder inside this one."""
        return replace(self, url=f"{self.url.rstrip('/')}/{path}")

    def with_patience(self, patience_s: float) -> Bucket:
        """The same, asked for so long while its store does not answer."""
        return replace(self, options=replace(self.options, patience_s=patience_s))

    def full(self, path: str) -> str:
        """The filesystem's name of an object."""
        return f"{self.root}/{path}" if path else self.root

    def where(self, path: str) -> str:
        """The URL of an object, for messages."""
        return f"{self.url.rstrip('/')}/{path}" if path else self.url

    def _asked(self, path: str, doing: str, ask: Callable[[bool], Answer]) -> Answer:
        """What ``ask`` answers, with the store's errors as sentences of ours and its silences outlasted (see ``patiently``)."""

        def once(again: bool) -> Answer:
            try:
                return ask(again)
            except client_errors() as error:
                raise self._sentence(error, path, doing) from error

        return patiently(once, self.where(path), self.options.patience_s)

    def _sentence(self, error: Exception, path: str, doing: str) -> StorageError:
        where = self.where(path)
        if isinstance(error, FileNotFoundError):
            return StorageError(f"{where} does not exist; {doing} it needs an existing path")
        if isinstance(error, PermissionError):
            return StorageError(f"{where}: not allowed ({error}); check credentials and rights for {doing}")
        if is_full(error):
            return StorageError(
                f"{where}: {doing} failed: no space is left at {self.url}; free some there or choose another place"
            )
        if not self.is_local and is_transient(error):
            told = str(error) or "no answer in time"
            return UnreachableError(f"{where}: {doing} failed: {told}; check endpoint, network and store")
        advice = "" if isinstance(error, OSError | ValueError) else "; check endpoint and credentials"
        return StorageError(f"{where}: {doing} failed: {error}{advice}")

    def read(self, path: str) -> bytes:
        """All bytes of an object."""
        return self._asked(path, "reading", lambda _: bytes(self.filesystem.cat_file(self.full(path))))

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``: one range request.

        Raises:
            StorageError: also if the object ends earlier; stores answer that with fewer bytes and no complaint.
        """
        if length == 0:
            return b""  # HTTP has no empty range
        span = {"start": offset, "end": offset + length}
        data = self._asked(path, "reading", lambda _: bytes(self.filesystem.cat_file(self.full(path), **span)))
        if len(data) != length:
            raise StorageError(f"{self.where(path)}: ends after {len(data)} of the {length} bytes from {offset}")
        return data

    def exists(self, path: str = "") -> bool:
        """Whether an object, or a folder with objects, is there."""
        return self._asked(path, "looking for", lambda _: self._is_there(path))

    def _is_there(self, path: str) -> bool:
        if self.is_local:
            return os.path.exists(self.full(path))
        try:  # not ``filesystem.exists``: of a whole bucket s3fs says "no" when nobody answers
            self.filesystem.info(self.full(path))
        except FileNotFoundError:
            return False
        return True

    def listing(self, path: str = "") -> list[StoredObject]:
        """Every object below ``path``, sorted by path.

        Raises:
            StorageError: if there is nothing at ``path``.
        """

        def ask(_: bool) -> dict[str, Any]:
            self.filesystem.invalidate_cache()
            found: dict[str, Any] = self.filesystem.find(self.full(path), detail=True)
            if not found and not self._is_there(path):
                raise FileNotFoundError(path)
            return found

        cut = len(self.root) + 1
        found = self._asked(path, "listing", ask)
        files = ((name[cut:], int(info["size"])) for name, info in found.items() if info["type"] == "file")
        return [StoredObject(path=path, size=size) for path, size in sorted(files) if not _is_temporary(path)]

    def put(self, path: str, data: bytes) -> None:
        """Write an object whole or not at all: one PUT, or a rename after fsync."""

        def ask(_: bool) -> None:
            if self.is_local:
                with _written_aside(self.full(path), data) as aside:
                    os.replace(aside, self.full(path))
            else:
                self._send(path, data)

        self._asked(path, "writing", ask)

    def _send(self, path: str, data: bytes, **how: str) -> None:
        """Upload. No timeout of s3fs holds while a request is being sent: a stalled store would be waited for without end."""
        limit = {"timeout": READ_TIMEOUT_S + len(data) / SLOWEST_BYTES_PER_S} if self.filesystem.async_impl else {}
        self.filesystem.pipe_file(self.full(path), data, **how, **limit)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none; False when somebody was first.

        When an answer is lost, the next attempt finds our own object; and attempts are not only ours: aiohttp sends a PUT
        again, unasked, on a connection that was reset. So with patience the bytes decide: an object of a store that equals
        ``data`` counts as ours, and several creators of equal bytes are all told True.
        """

        def ask(_: bool) -> bool:
            try:
                if self.is_local:
                    with _written_aside(self.full(path), data) as aside:
                        os.link(aside, self.full(path))
                else:
                    self._send(path, data, mode="create")
            except FileExistsError:
                patient = self.options.patience_s and not self.is_local
                return bool(patient) and bytes(self.filesystem.cat_file(self.full(path))) == data
            return True

        return self._asked(path, "creating", ask)

    def delete(self, path: str) -> None:
        """Remove an object or a folder of objects."""

        def ask(again: bool) -> None:
            try:
                self.filesystem.rm(self.full(path), recursive=True)
            except FileNotFoundError:
                if not again:  # otherwise the attempt without an answer has removed it
                    raise

        self._asked(path, "deleting", ask)


def _is_temporary(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(TEMPORARY_PREFIX)


@contextlib.contextmanager
def _written_aside(target: str, data: bytes) -> Iterator[str]:
    """A file beside ``target`` whose bytes are safe on disk; gone afterwards, unless it was renamed."""
    folder = os.path.dirname(target)
    LocalFileSystem().makedirs(folder, exist_ok=True)
    aside = os.path.join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
