"""A source of raw data, in which the images of MedMNIST's .npz files are objects of their own."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO, cast

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.object_store import StoredObject
from crossdim.pipelines.sources.npz import NpzFile
from crossdim.pipelines.sources.npz_paths import ImagePath, parse_path
from crossdim.storage_schema.errors import StorageError

#: Bytes that one request reads of an .npz file: its images are read one after the other. Ours.
_STEP_BYTES = 4 << 20
#: Open files that a process keeps; tasks read one after the other. Ours.
_OPEN_FILES = 2


class _ObjectStream(io.RawIOBase):
    """An object as a seekable stream, read by ranges."""

    def __init__(self, source: Bucket, path: str, size: int) -> None:
        super().__init__()
        self._source, self._path, self._size, self._position = source, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(0, min(len(buffer), self._size - self._position))
        buffer[:count] = self._source.read_range(self._path, self._position, count)
        self._position += count
        return count


@lru_cache(maxsize=_OPEN_FILES)
def _open(source: Bucket, path: str, size: int, version: str) -> NpzFile:
    """An .npz file, kept open in this process under its version, so that its images are inflated in one pass."""
    del version  # is part of the key: another content is another file
    return NpzFile(cast(BinaryIO, io.BufferedReader(_ObjectStream(source, path, size), _STEP_BYTES)))


def open_object(source: Bucket, path: str) -> tuple[NpzFile, StoredObject]:
    """Open an .npz file of a source.

    Args:
        source: a folder or bucket.
        path: of the file.

    Returns:
        The file, and how it is listed now.

    Raises:
        SampleError: if it is damaged.
        StorageError: if it is gone, or the store does not answer.
    """
    plain = Bucket(source.url, source.options)
    found = plain.list_objects(path)
    if len(found) != 1 or found[0].path != path:
        raise StorageError(f"{plain.where(path)} is a folder now; a file is expected")
    return _open(plain, path, found[0].size, found[0].version), found[0]


@dataclass(frozen=True)
class SourceBucket(Bucket):
    """A bucket whose paths may name images of .npz files, as :class:`ImagePath` spells them, in its version."""

    def read(self, path: str) -> bytes:
        """All bytes of an object, or of an image as an .npy file."""
        image = parse_path(path)
        return super().read(path) if image is None else self._read_image(image)[0]

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Read part of an object, or of an image as an .npy file.

        Args:
            path: of the object.
            offset: first byte.
            length: number of bytes.

        Returns:
            The bytes.
        """
        image = parse_path(path)
        if image is None:
            return super().read_range(path, offset, length)
        return self._read_image(image)[0][offset : offset + length]

    def list_objects(self, path: str = "", *, problems: bool = False, temporary: bool = False) -> list[StoredObject]:
        """List every object below ``path``, or the image that it names.

        Args:
            path: a folder, an object or an image.
            problems: whether to list what cannot be read, too.
            temporary: whether to list half-written files, too.

        Returns:
            The objects.
        """
        image = parse_path(path)
        if image is None:
            return super().list_objects(path, problems=problems, temporary=temporary)
        data, found = self._read_image(image)
        return [replace(found, path=path, size=len(data))]

    def _read_image(self, image: ImagePath) -> tuple[bytes, StoredObject]:
        container, found = open_object(self, image.container)
        try:
            return container.read_image(image.part, image.index), found
        except KeyError as error:
            raise StorageError(f"{self.where(image.container)} no longer holds image {error}; it was written anew") from error
