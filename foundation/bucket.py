"""Bucket: a folder of objects behind any URL, with atomic writes and errors in sentences."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec

from crossdim.foundation.extras import missing
from crossdim.foundation.fsspec_objects import FsspecObjects
from crossdim.foundation.local_files import LocalFiles, check_folder
from crossdim.foundation.location import (
    S3_PROTOCOLS,
    is_local,
    local_path,
    protocol_of,
    shown_location,
    split_query,
    without_secrets,
)
from crossdim.foundation.object_store import TEMPORARY_PREFIX, ObjectStore, StoredObject
from crossdim.foundation.retry import Answer, client_errors, is_full, is_transient, patiently
from crossdim.foundation.store_errors import meaning_of
from crossdim.foundation.store_options import StoreOptions
from crossdim.storage_schema.errors import StorageError, UnreachableError
from crossdim.storage_schema.names import escape_name, unescape_name

__all__ = ["TEMPORARY_PREFIX", "Bucket", "StoreOptions", "StoredObject"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A root URL and how to reach it. A value: it travels to workers and opens its store there.

    Paths of objects are written as :func:`crossdim.storage_schema.names.escape_name` writes names. No character of a path is a
    pattern.
    The query of a web address goes with every request and is part of no path.
    """

    url: str
    options: StoreOptions = field(default_factory=StoreOptions)

    @property
    def protocol(self) -> str:
        """The URL's scheme; ``file`` for a plain path."""
        return protocol_of(self.url)

    @property
    def is_local(self) -> bool:
        """Whether objects are files of this machine."""
        return is_local(self.url)

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem; fsspec keeps one instance per process and options."""
        try:
            filesystem = fsspec.filesystem(self.protocol, **self.options.filesystem_arguments(self.protocol))
        except (ValueError, ImportError) as error:
            if isinstance(error, ImportError) and self.protocol in S3_PROTOCOLS:
                raise missing(self.url, "s3fs") from error
            raise StorageError(f"{self.where('')}: no store speaks {self.protocol}:// here ({error})") from error
        if self.protocol in S3_PROTOCOLS:
            filesystem.retries = 1  # around each of botocore's attempts s3fs makes five; no argument sets it
        return filesystem

    @property
    def root(self) -> str:
        """The root as the store names it: an absolute folder, or bucket and prefix."""
        if self.is_local:
            return local_path(self.url)
        return str(type(self.filesystem)._strip_protocol(split_query(self.url)[0])).rstrip("/")

    @property
    def _store(self) -> ObjectStore:
        return self._writer(private=False)

    def _writer(self, *, private: bool) -> ObjectStore:
        if self.is_local:
            return LocalFiles(private=private)
        if self.protocol in S3_PROTOCOLS:
            filesystem = self.filesystem  # says what is missing if s3fs is
            from crossdim.foundation.s3_objects import S3Objects

            return S3Objects(filesystem, self.root)
        return FsspecObjects(self.filesystem)

    def at(self, path: str) -> Bucket:
        """A folder inside this one."""
        return replace(self, url=self._below(unescape_name(path)))

    def _below(self, path: str) -> str:
        base, query = split_query(self.url)
        return f"{base.rstrip('/')}/{path}{query}"

    def with_patience(self, patience_s: float) -> Bucket:
        """The same, asked for so long while its store does not answer."""
        return replace(self, options=replace(self.options, patience_s=patience_s))

    def full(self, path: str) -> str:
        """The store's name of an object."""
        root, query = self.root, split_query(self.url)[1]
        return f"{root.rstrip('/')}/{unescape_name(path)}{query}" if path else f"{root}{query}"

    def where(self, path: str) -> str:
        """The URL of an object, for messages."""
        return shown_location(self._below(path) if path else self.url)

    def _asked(self, path: str, doing: str, ask: Callable[[bool], Answer]) -> Answer:
        """What ``ask`` answers, with the store's errors as sentences of ours and its silences outlasted (see ``patiently``)."""

        def once(again: bool) -> Answer:
            try:
                return ask(again)
            except NotImplementedError as error:
                raise StorageError(f"{self.where(path)}: {self.protocol}:// stores cannot be used for {doing}") from error
            except client_errors() as error:
                raise self._sentence(error, path, doing) from error

        return patiently(once, self.where(path), self.options.patience_s)

    def _sentence(self, error: Exception, path: str, doing: str) -> StorageError:
        where, told = self.where(path), without_secrets(str(error))
        if not self.is_local and (meaning := meaning_of(error, self.options)):
            return StorageError(f"{where}: {doing} failed: {meaning}")
        if isinstance(error, FileNotFoundError):
            return StorageError(f"{where} does not exist; {doing} it needs an existing path")
        if isinstance(error, PermissionError):
            return StorageError(f"{where}: not allowed ({told}); check credentials and rights for {doing}")
        if is_full(error):
            return StorageError(
                f"{where}: {doing} failed: no space is left at {self.where('')}; free some there or choose another place"
            )
        if not self.is_local and is_transient(error):
            told = told or "no answer in time"
            return UnreachableError(f"{where}: {doing} failed: {told}; check endpoint, network and store")
        advice = "" if isinstance(error, OSError | ValueError) else "; check endpoint and credentials"
        return StorageError(f"{where}: {doing} failed: {told}{advice}")

    def read(self, path: str) -> bytes:
        """All bytes of an object."""
        return self._asked(path, "reading", lambda _: self._store.read(self.full(path)))

    def read_document(self, path: str) -> bytes:
        """All bytes of a JSON document.

        Raises:
            StorageError: also if a store answers with a web page, as a gateway before it does that wants a sign-in.
        """
        data = self.read(path)
        if not self.is_local and data.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
            raise StorageError(
                f"{self.where(path)}: the store answers with a web page, where JSON is expected; check --endpoint-url, and "
                "whether a gateway before the store wants a sign-in"
            )
        return data

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``: one range request.

        Raises:
            StorageError: also if the object ends earlier; stores answer that with fewer bytes and no complaint.
        """
        if length == 0:
            return b""  # HTTP has no empty range
        data = self._asked(path, "reading", lambda _: self._store.read_range(self.full(path), offset, length))
        if len(data) != length:
            raise StorageError(f"{self.where(path)}: ends after {len(data)} of the {length} bytes from {offset}")
        return data

    def exists(self, path: str = "") -> bool:
        """Whether an object, or a folder with objects, is there."""
        return self._asked(path, "looking for", lambda _: self._store.exists(self.full(path)))

    def listing(self, path: str = "", *, problems: bool = False) -> list[StoredObject]:
        """Every object below ``path``, sorted by path; files and folders that links lead to are listed under the links' names.

        Args:
            path: a folder, or an object (which is then listed alone).
            problems: whether to list also what stands in the place of an object and cannot be read, with its problem.

        Raises:
            StorageError: if there is nothing at ``path``.
        """
        found = self._asked(path, "listing", lambda _: self._store.list(self.full(path)))
        below = f"{path}/" if path else ""
        named = (replace(one, path=f"{below}{escape_name(one.path)}" if one.path else path) for one in found)
        kept = (one for one in named if not _is_temporary(one.path) and (problems or not one.problem))
        return sorted(kept, key=lambda one: one.path)

    def put(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Write an object whole or not at all: one PUT, or a rename after fsync. A private file is its owner's alone."""
        self._asked(path, "writing", lambda _: self._writer(private=private).put(self.full(path), data))

    def check_writable(self) -> None:
        """Find out now, before hours of work, whether objects may be written and removed here. Nothing stays behind.

        Raises:
            StorageError: if they may not.
        """

        def ask(_: bool) -> None:
            if self.is_local:
                check_folder(self.root)
                return
            trial = self.full(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
            self._store.put(trial, b"")
            self._store.delete(trial)

        self.with_patience(0)._asked("", "writing", ask)

    def create(self, path: str, data: bytes, *, private: bool = False) -> bool:
        """Write an object only if there is none; False when somebody was first. A private file is its owner's alone.

        When an answer is lost, the next attempt finds our own object; and attempts are not only ours: aiohttp sends a PUT
        again, unasked, on a connection that was reset. So with patience the bytes decide: an object of a store that equals
        ``data`` counts as ours, and several creators of equal bytes are all told True.
        """

        def ask(_: bool) -> bool:
            try:
                self._writer(private=private).create(self.full(path), data)
            except FileExistsError:
                patient = self.options.patience_s and not self.is_local
                return bool(patient) and self._store.read(self.full(path)) == data
            return True

        return self._asked(path, "creating", ask)

    def delete(self, path: str) -> None:
        """Remove an object or a folder of objects, each by its exact name. Links are removed, never followed."""

        def ask(again: bool) -> None:
            try:
                self._store.delete(self.full(path))
            except FileNotFoundError:
                if not again:  # otherwise the attempt without an answer has removed it
                    raise

        self._asked(path, "deleting", ask)


def _is_temporary(path: str) -> bool:
    return path.rsplit("/", 1)[-1].startswith(TEMPORARY_PREFIX)
