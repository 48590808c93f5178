"""Objects of any store that fsspec knows, by their exact names: only calls that expand no patterns are used."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from crossdim.foundation.object_store import StoredObject
from crossdim.foundation.retry import causes_of, error_classes

#: Answers of a web server that mean that there is nothing of a name.
NOT_THERE = (404, 410)


class FsspecObjects:
    """Objects by the names of an fsspec filesystem."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def read(self, name: str) -> bytes:
        """All bytes of an object."""
        return bytes(self._filesystem.cat_file(name))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read part of an object.

        Args:
            name: of the object.
            offset: first byte.
            length: number of bytes.

        Returns:
            ``length`` bytes, or fewer if the object ends earlier.
        """
        return bytes(self._filesystem.cat_file(name, start=offset, end=offset + length))

    def exists(self, name: str) -> bool:
        """Whether an object, or a folder with objects, is there."""
        try:  # not ``filesystem.exists``, which also says "no" when nobody answers
            self._filesystem.info(name)
        except FileNotFoundError as error:
            failure = _find_failure(error)
        else:
            return True
        if failure is not None:
            raise failure
        return False

    def list(self, name: str) -> list[StoredObject]:
        """Every object below the folder ``name``, or the object itself under the path ""."""
        self._filesystem.invalidate_cache()
        found = self._filesystem.find(name, detail=True)
        if not found and not self.exists(name):
            raise FileNotFoundError(name)
        # A web server's single file is found without a description.
        described = ((path, info or self._filesystem.info(path)) for path, info in found.items())
        files = ((path, info) for path, info in described if info["type"] == "file")
        return [_build_stored_object(path[len(name) + 1 :], info) for path, info in files]

    def put(self, name: str, data: bytes) -> None:
        """Write an object, or replace it.

        Args:
            name: of the object.
            data: its bytes.
        """
        self._filesystem.pipe_file(name, data)

    def create(self, name: str, data: bytes) -> None:
        """Write an object if there is none of its name.

        Args:
            name: of the object.
            data: its bytes.

        Raises:
            FileExistsError: if there is one.
        """
        self._filesystem.pipe_file(name, data, mode="create")

    def delete(self, name: str) -> None:
        """Remove an object and every object below it as a folder, each by its name; FileNotFoundError if there is none."""
        self._filesystem.invalidate_cache()
        found = self._filesystem.find(name, withdirs=True, detail=True)
        if not found and not self.exists(name):
            raise FileNotFoundError(name)
        folders = {name} | {path for path, info in found.items() if info["type"] == "directory"}
        for path, info in found.items():
            if info["type"] == "file":
                folders.discard(path)
                self._filesystem.rm_file(path)
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError, NotImplementedError):  # most stores have no folders beyond their objects
                self._filesystem.rmdir(folder)

    def delete_exactly(self, names: Sequence[str]) -> None:
        """Remove objects by their names, and nothing below them; one that is gone already is no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._filesystem.rm_file(name)

    def delete_empty_folders(self, name: str) -> None:
        """Remove the folder ``name`` and the folders in it, as far as they hold nothing and may be removed."""
        self._filesystem.invalidate_cache()
        found = self._filesystem.find(name, withdirs=True, detail=True)
        folders = {name, *(path for path, info in found.items() if info["type"] == "directory")}
        for folder in sorted(folders, reverse=True):
            with contextlib.suppress(OSError, NotImplementedError):  # most stores have no folders beyond their objects
                self._filesystem.rmdir(folder)


def _find_failure(error: FileNotFoundError) -> Exception | None:
    """What kept a web server from answering: fsspec calls that "not found" as well; None if it said that nothing is there."""
    unreachable, refused = error_classes("aiohttp", "ClientConnectionError"), error_classes("aiohttp", "ClientResponseError")
    for cause in causes_of(error):
        if isinstance(cause, unreachable) or (isinstance(cause, refused) and getattr(cause, "status", 0) not in NOT_THERE):
            return cause
    return None


def _build_stored_object(path: str, info: dict[str, Any]) -> StoredObject:
    if info.get("size") is None:  # a web server's pages name files and not their sizes
        raise ValueError(
            f"the store lists {path.partition('?')[0]} without its size; copy the files to a folder or an object store"
        )
    version = next((str(info[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "created") if info.get(key)), "")
    return StoredObject(path=path, size=int(info["size"]), version=version.strip('"'), changed_at=_read_change_time(info))


def _read_change_time(info: dict[str, Any]) -> int:
    """When an object was last written, of the names and types that stores tell it by; 0 where they do not."""
    changed = next((info[key] for key in ("LastModified", "last_modified", "updated", "mtime", "created") if info.get(key)), 0)
    if isinstance(changed, str):
        with contextlib.suppress(ValueError):
            changed = datetime.fromisoformat(changed)
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    return int(changed * 1e9) if isinstance(changed, int | float) else 0
