"""Bucket: a folder of objects behind any fsspec URL, with atomic writes and errors in sentences."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storage_schema.errors import StorageError

#: Names of half-written local files start so; listings leave them out.
TEMPORARY_PREFIX = ".crossdim-tmp-"
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions:
    """How to reach a store. Empty fields leave the choice to the usual places (profile, instance role, environment)."""

    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    region: str | None = None
    anonymous: bool = False

    def filesystem_arguments(self, protocol: str) -> dict[str, Any]:
        """Keyword arguments for the fsspec filesystem of ``protocol``."""
        if protocol not in ("s3", "s3a"):
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
                "retries": {"max_attempts": 3, "mode": "standard"},
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
            return fsspec.filesystem(self.protocol, **self.options.filesystem_arguments(self.protocol))
        except (ValueError, ImportError) as error:
            raise StorageError(f"{self.url}: no store speaks {self.protocol}:// here ({error})") from error

    @property
    def root(self) -> str:
        """The root as the filesystem names it: an absolute folder, or bucket and prefix."""
        return str(type(self.filesystem)._strip_protocol(self.url)).rstrip("/")

    def at(self, path: str) -> Bucket:
        """A folder inside this one."""
        return replace(self, url=f"{self.url.rstrip('/')}/{path}")

    def full(self, path: str) -> str:
        """The filesystem's name of an object."""
        return f"{self.root}/{path}" if path else self.root

    def where(self, path: str) -> str:
        """The URL of an object, for messages."""
        return f"{self.url.rstrip('/')}/{path}" if path else self.url

    @contextlib.contextmanager
    def _answering(self, path: str, doing: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(f"{self.where(path)} does not exist; {doing} it needs an existing path") from error
        except PermissionError as error:
            raise StorageError(f"{self.where(path)}: not allowed ({error}); check credentials and rights for {doing}") from error
        except (OSError, ValueError) as error:  # clients raise ValueError for an endpoint that is no URL
            raise StorageError(f"{self.where(path)}: {doing} failed: {error}") from error
        except _client_errors() as error:
            raise StorageError(f"{self.where(path)}: {doing} failed: {error}; check endpoint and credentials") from error

    def read(self, path: str) -> bytes:
        """All bytes of an object."""
        with self._answering(path, "reading"):
            return bytes(self.filesystem.cat_file(self.full(path)))

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``: one range request.

        Raises:
            StorageError: also if the object ends earlier; stores answer that with fewer bytes and no complaint.
        """
        if length == 0:
            return b""  # HTTP has no empty range
        with self._answering(path, "reading"):
            data = bytes(self.filesystem.cat_file(self.full(path), start=offset, end=offset + length))
        if len(data) != length:
            raise StorageError(f"{self.where(path)}: ends after {len(data)} of the {length} bytes from {offset}")
        return data

    def exists(self, path: str = "") -> bool:
        """Whether an object, or a folder with objects, is there."""
        with self._answering(path, "looking for"):
            return bool(self.filesystem.exists(self.full(path)))

    def listing(self, path: str = "") -> list[StoredObject]:
        """Every object below ``path``, sorted by path.

        Raises:
            StorageError: if there is nothing at ``path``.
        """
        with self._answering(path, "listing"):
            self.filesystem.invalidate_cache()
            found = self.filesystem.find(self.full(path), detail=True)
            if not found and not self.filesystem.exists(self.full(path)):
                raise FileNotFoundError(path)
        cut = len(self.root) + 1
        files = ((name[cut:], int(info["size"])) for name, info in found.items() if info["type"] == "file")
        return [StoredObject(path=path, size=size) for path, size in sorted(files) if not _is_temporary(path)]

    def put(self, path: str, data: bytes) -> None:
        """Write an object whole or not at all: one PUT, or a rename after fsync."""
        with self._answering(path, "writing"):
            if self.is_local:
                with _written_aside(self.full(path), data) as aside:
                    os.replace(aside, self.full(path))
            else:
                self.filesystem.pipe_file(self.full(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object only if there is none; False when somebody was first."""
        with self._answering(path, "creating"):
            try:
                if self.is_local:
                    with _written_aside(self.full(path), data) as aside:
                        os.link(aside, self.full(path))
                else:
                    self.filesystem.pipe_file(self.full(path), data, mode="create")
            except FileExistsError:
                return False
        return True

    def delete(self, path: str) -> None:
        """Remove an object or a folder of objects."""
        with self._answering(path, "deleting"):
            self.filesystem.rm(self.full(path), recursive=True)


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


def _client_errors() -> tuple[type[Exception], ...]:
    """Errors of store clients that are no OSError; only those whose client is in use."""
    botocore = sys.modules.get("botocore.exceptions")
    return (botocore.BotoCoreError, botocore.ClientError) if botocore else ()
