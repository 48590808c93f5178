"""Bucket: a folder of objects behind any URL, with atomic writes and errors that say what to do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec

from crossdim.foundation.extras import build_missing_error
from crossdim.foundation.forks import protect_from_forks
from crossdim.foundation.fsspec_objects import FsspecObjects
from crossdim.foundation.local_files import LocalFiles, check_folder
from crossdim.foundation.location import (
    S3_PROTOCOLS,
    format_location,
    hide_secrets,
    is_local,
    local_path,
    protocol_of,
    split_query,
)
from crossdim.foundation.object_store import TEMPORARY_PREFIX, ObjectStore, StoredObject
from crossdim.foundation.pending_requests import note_request
from crossdim.foundation.retry import Answer, ask_until_answered, client_errors, is_full, is_transient
from crossdim.foundation.store_errors import explain_error
from crossdim.foundation.store_options import StoreOptions
from crossdim.storage_schema.errors import ShortObjectError, StorageError, UnreachableError
from crossdim.storage_schema.names import escape_name, unescape_name

__all__ = ["TEMPORARY_PREFIX", "Bucket", "StoreOptions", "StoredObject", "is_temporary"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A root URL and the options to reach it. Plain data: it is sent to workers, which open the store themselves.

    Paths of objects are written as :func:`crossdim.storage_schema.names.escape_name` writes names. No character of a path is a
    pattern. The query of a web address is sent with every request and is part of no path.
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
                raise build_missing_error(self.url, "s3fs") from error
            raise StorageError(f"{self.where('')}: no store speaks {self.protocol}:// here ({error})") from error
        protect_from_forks(filesystem)
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
        """The same bucket, which asks a store that does not answer again for this many seconds."""
        return replace(self, options=replace(self.options, patience_s=patience_s))

    def full(self, path: str) -> str:
        """The store's name of an object."""
        root, query = self.root, split_query(self.url)[1]
        return f"{root.rstrip('/')}/{unescape_name(path)}{query}" if path else f"{root}{query}"

    def where(self, path: str) -> str:
        """The URL of an object, for messages."""
        return format_location(self._below(path) if path else self.url)

    def _ask(self, path: str, doing: str, ask: Callable[[bool], Answer]) -> Answer:
        """Call ``ask`` with the store's errors turned into our own, again while the store does not answer."""

        def once(again: bool) -> Answer:
            try:
                return ask(again)
            except NotImplementedError as error:
                raise StorageError(f"{self.where(path)}: {self.protocol}:// stores cannot be used for {doing}") from error
            except client_errors() as error:
                raise self._explain(error, path, doing) from error

        place = self.where(path)
        with note_request(place):
            return ask_until_answered(once, place, self.options.patience_s)

    def _explain(self, error: Exception, path: str, doing: str) -> StorageError:
        where, message = self.where(path), hide_secrets(str(error))
        if not self.is_local and (meaning := explain_error(error, self.options)):
            return StorageError(f"{where}: {doing} failed: {meaning}")
        if isinstance(error, FileNotFoundError):
            return StorageError(f"{where} does not exist; {doing} it needs an existing path")
        if isinstance(error, PermissionError):
            return StorageError(f"{where}: not allowed ({message}); check credentials and rights for {doing}")
        if is_full(error):
            return StorageError(
                f"{where}: {doing} failed: no space is left at {self.where('')}; free some there or choose another place"
            )
        if not self.is_local and is_transient(error):
            message = message or "no answer in time"
            return UnreachableError(f"{where}: {doing} failed: {message}; check endpoint, network and store")
        advice = "" if isinstance(error, OSError | ValueError) else "; check endpoint and credentials"
        return StorageError(f"{where}: {doing} failed: {message}{advice}")

    def read(self, path: str) -> bytes:
        """All bytes of an object."""
        return self._ask(path, "reading", lambda _: self._store.read(self.full(path)))

    def read_document(self, path: str) -> bytes:
        """Read all bytes of a JSON document.

        Raises:
            StorageError: as :meth:`read`, and if the answer is a web page, as from a gateway that asks for a sign-in.
        """
        data = self.read(path)
        if not self.is_local and data.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
            raise StorageError(
                f"{self.where(path)}: the store answers with a web page, where JSON is expected; check --endpoint-url, and "
                "whether a gateway before the store wants a sign-in"
            )
        return data

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Read part of an object with one range request.

        Args:
            path: of the object.
            offset: first byte.
            length: number of bytes; 0 sends no request.

        Returns:
            Exactly ``length`` bytes.

        Raises:
            ShortObjectError: if the object ends earlier, which stores answer with fewer bytes and no error.
            StorageError: if the store fails.
        """
        if length == 0:
            return b""  # HTTP has no empty range
        data = self._ask(path, "reading", lambda _: self._store.read_range(self.full(path), offset, length))
        if len(data) != length:
            raise ShortObjectError(f"{self.where(path)}: ends after {len(data)} of the {length} bytes from {offset}")
        return data

    def exists(self, path: str = "") -> bool:
        """Whether an object, or a folder with objects, is there."""
        return self._ask(path, "looking for", lambda _: self._store.exists(self.full(path)))

    def list_objects(self, path: str = "", *, problems: bool = False, temporary: bool = False) -> list[StoredObject]:
        """List every object below ``path``; files and folders that links lead to are listed under the links' names.

        Args:
            path: a folder, or an object (which is then listed alone).
            problems: whether to list also entries that cannot be read, such as dangling links, with their problem.
            temporary: whether to list also the half-written files of processes that write or were killed.

        Returns:
            The objects, sorted by path.

        Raises:
            StorageError: if there is nothing at ``path``.
        """
        found = self._ask(path, "listing", lambda _: self._store.list(self.full(path)))
        below = f"{path}/" if path else ""
        named = (replace(one, path=f"{below}{escape_name(one.path)}" if one.path else path) for one in found)
        kept = (one for one in named if (temporary or not is_temporary(one.path)) and (problems or not one.problem))
        return sorted(kept, key=lambda one: one.path)

    def put(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Write an object completely or not at all: one PUT, or a rename after fsync.

        Args:
            path: of the object; an object that is there is replaced.
            data: its bytes.
            private: whether a file may be read by its owner only (mode 0600); no effect in other stores.
        """
        self._ask(path, "writing", lambda _: self._writer(private=private).put(self.full(path), data))

    def check_writable(self) -> None:
        """Check, before hours of work, that objects may be written and removed here. Nothing is left behind.

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

        self.with_patience(0)._ask("", "writing", ask)

    def create(self, path: str, data: bytes, *, private: bool = False) -> bool:
        """Write an object only if there is none of this path.

        When an answer is lost, the next attempt finds our own object; and not only we repeat: aiohttp sends a PUT again by
        itself on a
        connection that was reset. So with patience the bytes decide: an object in a store that equals ``data`` counts as ours,
        and
        several creators of equal bytes all get True.

        Args:
            path: of the object.
            data: its bytes.
            private: whether a file may be read by its owner only (mode 0600); no effect in other stores.

        Returns:
            Whether the object is ours; False if there was another one before.
        """

        def ask(_: bool) -> bool:
            try:
                self._writer(private=private).create(self.full(path), data)
            except FileExistsError:
                patient = self.options.patience_s and not self.is_local
                return bool(patient) and self._store.read(self.full(path)) == data
            return True

        return self._ask(path, "creating", ask)

    def delete(self, path: str) -> None:
        """Remove an object or a folder of objects, each by its exact name. Links are removed, not followed."""

        def ask(again: bool) -> None:
            try:
                self._store.delete(self.full(path))
            except FileNotFoundError:
                if not again:  # otherwise the attempt without an answer has removed it
                    raise

        self._ask(path, "deleting", ask)

    def delete_exactly(self, paths: Iterable[str]) -> None:
        """Remove objects by their exact names, and nothing below them. Links are removed, not followed; no object is no error."""
        names = [self.full(path) for path in paths]
        self._ask("", "deleting", lambda _: self._store.delete_exactly(names))

    def delete_empty_folders(self) -> None:
        """Remove this folder and the folders in it, as far as they hold nothing and may be removed; never a file."""
        self._ask("", "deleting", lambda _: self._store.delete_empty_folders(self.full("")))


def is_temporary(path: str) -> bool:
    """Whether a path is that of a half-written file."""
    return path.rsplit("/", 1)[-1].startswith(TEMPORARY_PREFIX)
