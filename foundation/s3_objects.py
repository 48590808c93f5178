"""S3 objects by their exact keys.

s3fs is used for single requests only: its own calls by path treat ``*``, ``?`` and ``[ ]`` as patterns when they delete, cut
a key at ``?versionId=``, drop slashes at its end, and do not report what could not be deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from fsspec.asyn import sync
from s3fs.core import S3FileSystem, _error_wrapper

from crossdim.foundation import store_options
from crossdim.foundation.object_store import StoredObject

#: An upload may take READ_TIMEOUT_S and the time of its bytes at this rate; a slower store counts as silent. Our choice.
SLOWEST_BYTES_PER_S = 200_000
#: A larger object is read in ranges of this size, several at a time, and written in parts, as s3fs does.
PART_BYTES = 50 * 2**20
PARALLEL_READS = 10
KEYS_PER_DELETE = 1000  # S3's limit


class S3Objects:
    """Objects of one S3 bucket; names are ``bucket/key``."""

    def __init__(self, filesystem: S3FileSystem, root: str) -> None:
        self._filesystem = filesystem
        self._bucket = filesystem._find_bucket_key(root)[0]  # may be an access point, whose name holds slashes

    def _key(self, name: str) -> str:
        return name[len(self._bucket) + 1 :]

    def _call(self, method: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._filesystem.call_s3(method, Bucket=self._bucket, **request)
        return answer

    def read(self, name: str) -> bytes:
        """All bytes of an object."""
        return bytes(sync(self._filesystem.loop, self._read, self._key(name)))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read part of an object with one range request.

        Args:
            name: ``bucket/key``.
            offset: first byte.
            length: number of bytes.

        Returns:
            ``length`` bytes, or fewer if the object ends earlier.
        """
        return bytes(sync(self._filesystem.loop, self._get, self._key(name), offset, length))

    async def _read(self, key: str) -> bytes:
        found = await self._get(key)
        if isinstance(found, bytes):
            return found
        size, same = found
        data, slots = bytearray(size), asyncio.Semaphore(PARALLEL_READS)

        async def fill(start: int) -> None:
            async with slots:
                part = await self._get(key, start, min(PART_BYTES, size - start), **same)
            data[start : start + len(part)] = part

        await asyncio.gather(*(fill(start) for start in range(0, size, PART_BYTES)))
        return bytes(data)

    async def _get(self, key: str, offset: int | None = None, length: int = 0, **how: str) -> Any:
        """The bytes of a range. For a whole object its bytes; its size and a condition if it should be read in parts."""
        span = {} if offset is None else {"Range": f"bytes={offset}-{offset + length - 1}"}

        async def ask() -> Any:
            answer = await self._filesystem._call_s3("get_object", Bucket=self._bucket, Key=key, **span, **how)
            try:
                if not span and answer.get("ContentLength", 0) > PART_BYTES:
                    return answer["ContentLength"], {"IfMatch": answer["ETag"]} if answer.get("ETag") else {}
                return await answer["Body"].read()
            finally:
                answer["Body"].close()

        return await _error_wrapper(ask, retries=self._filesystem.retries)  # a body may be cut short after a good answer

    def exists(self, name: str) -> bool:
        """Whether an object, or a folder with objects, is there."""
        try:
            return self._has_object(name) or any(self._pages(self._folder(name), MaxKeys=1))
        except FileNotFoundError:  # not even the bucket
            return False

    def _has_object(self, name: str) -> bool:
        if not self._key(name):
            return False
        try:
            self._call("head_object", Key=self._key(name))
        except FileNotFoundError:
            return False
        return True

    def _folder(self, name: str) -> str:
        """The prefix of the keys below a folder."""
        return f"{key}/" if (key := self._key(name)) else ""

    def _pages(self, prefix: str, **how: Any) -> Iterator[list[dict[str, Any]]]:
        """The pages of a listing that are not empty."""
        after: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **after, **how)
            if page.get("Contents"):
                if not all(entry.get("Key") for entry in page["Contents"]):
                    raise ValueError("the store lists objects without their keys; check --endpoint-url")
                yield page["Contents"]
            if not page.get("IsTruncated"):
                return
            if not page.get("NextContinuationToken"):
                raise ValueError("the store ends a listing before its end, without a token to go on from; check --endpoint-url")
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def list(self, name: str) -> list[StoredObject]:
        """Every object below the folder ``name``, or the object itself under the path ""; no markers of empty folders."""
        prefix = self._folder(name)
        below = [entry for page in self._pages(prefix) for entry in page]
        if below or not prefix:
            marked = (entry for entry in below if entry.get("Size") != 0 or not entry["Key"].endswith("/"))
            return [_build_stored_object(entry["Key"], len(prefix), entry.get("Size"), entry) for entry in marked]
        itself = self._call("head_object", Key=(key := self._key(name)))
        return [_build_stored_object(key, len(key), itself.get("ContentLength"), itself)]

    def put(self, name: str, data: bytes) -> None:
        """Write an object, or replace it: one PUT, or a multipart upload, which is visible only when it is complete.

        Args:
            name: ``bucket/key``.
            data: its bytes.
        """
        self._send(name, data)

    def create(self, name: str, data: bytes) -> None:
        """Write an object if there is none of its name.

        Args:
            name: ``bucket/key``.
            data: its bytes.

        Raises:
            FileExistsError: if there is one.
        """
        self._send(name, data, IfNoneMatch="*")

    def _send(self, name: str, data: bytes, **how: str) -> None:
        """Upload with a timeout of our own: s3fs has none while a request is being sent, and a stalled store would hang."""
        timeout = store_options.READ_TIMEOUT_S + len(data) / SLOWEST_BYTES_PER_S
        if len(data) < 2 * PART_BYTES:
            self._call("put_object", Key=self._key(name), Body=data, timeout=timeout, **how)
        else:
            mode = "create" if how else "overwrite"
            self._filesystem.pipe_file(name, data, chunksize=PART_BYTES, mode=mode, timeout=timeout)

    def delete(self, name: str) -> None:
        """Remove an object and every object below it as a folder, each by its key; FileNotFoundError if there is none."""
        keys = [self._key(name)] if self._has_object(name) else []
        keys += [entry["Key"] for page in self._pages(self._folder(name)) for entry in page]
        if not keys:
            raise FileNotFoundError(name)
        self._delete_keys(keys)

    def delete_exactly(self, names: Sequence[str]) -> None:
        """Remove objects by their keys, and nothing below them; S3 does not say whether they were there."""
        self._delete_keys([self._key(name) for name in names])

    def delete_empty_folders(self, name: str) -> None:
        """Remove the markers of empty folders: objects without bytes, whose keys end with a slash and begin no other key."""
        below = [entry for page in self._pages(self._folder(name)) for entry in page]
        markers = {entry["Key"] for entry in below if entry.get("Size") == 0 and entry["Key"].endswith("/")}
        others = [entry["Key"] for entry in below if entry["Key"] not in markers]
        self._delete_keys([marker for marker in sorted(markers) if not any(key.startswith(marker) for key in others)])

    def _delete_keys(self, keys: Sequence[str]) -> None:
        plain = [key for key in keys if key.isprintable()]
        for start in range(0, len(plain), KEYS_PER_DELETE):
            self._delete_many(plain[start : start + KEYS_PER_DELETE])
        for key in keys:
            if not key.isprintable():  # XML cannot hold every character, and stores read some of them as others
                self._call("delete_object", Key=key)

    def _delete_many(self, keys: Sequence[str]) -> None:
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        refused = self._call("delete_objects", Delete=request).get("Errors", [])
        if refused:
            first = refused[0]
            kind = PermissionError if first.get("Code") == "AccessDenied" else OSError
            raise kind(f"{len(refused)} objects stay, such as {first.get('Key')}: {first.get('Code')}: {first.get('Message')}")


def _build_stored_object(key: str, start: int, size: int | None, listed: Mapping[str, Any]) -> StoredObject:
    """An object whose path is its key from ``start`` on; not every store has ETags."""
    if size is None:
        raise ValueError(f"the store lists {key} without its size; copy the files to a folder or another object store")
    written = listed.get("LastModified")
    changed_at = int(written.timestamp() * 1e9) if isinstance(written, datetime) else 0
    return StoredObject(path=key[start:], size=int(size), version=(listed.get("ETag") or "").strip('"'), changed_at=changed_at)
