"""A bucket that counts the requests that its calls take in an object store."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.object_store import StoredObject
from crossdim.pipelines.sources.source_bucket import SourceBucket

#: Objects that one request lists or deletes, in S3 and its like.
PAGE = 1000


@dataclass(frozen=True)
class CountingBucket(SourceBucket):
    """Counts requests by kind: ``read``, ``write``, ``list``. A look for an object counts as a listing; most stores ask once."""

    requests: Counter[str] = field(default_factory=Counter, compare=False)

    @classmethod
    def wrap(cls, bucket: Bucket, requests: Counter[str]) -> CountingBucket:
        """Make a bucket count.

        Args:
            bucket: any.
            requests: where it counts.

        Returns:
            The same place, counted.
        """
        return cls(bucket.url, bucket.options, requests)

    def read(self, path: str) -> bytes:
        """All bytes of an object."""
        self.requests["read"] += 1
        return super().read(path)

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Read part of an object with one request.

        Args:
            path: of the object.
            offset: first byte.
            length: number of bytes.

        Returns:
            The bytes.
        """
        self.requests["read"] += 1
        return super().read_range(path, offset, length)

    def exists(self, path: str = "") -> bool:
        """Whether an object, or a folder with objects, is there."""
        self.requests["list"] += 1
        return super().exists(path)

    def list_objects(self, path: str = "", *, problems: bool = False, temporary: bool = False) -> list[StoredObject]:
        """List every object below ``path``.

        Args:
            path: a folder or an object.
            problems: whether to list what cannot be read, too.
            temporary: whether to list half-written files, too.

        Returns:
            The objects.
        """
        found = super().list_objects(path, problems=problems, temporary=temporary)
        self.requests["list"] += max(1, math.ceil(len(found) / PAGE))
        return found

    def put(self, path: str, data: bytes, *, private: bool = False) -> None:
        """Write an object.

        Args:
            path: of the object.
            data: its bytes.
            private: whether its owner alone may read it.
        """
        self.requests["write"] += 1
        super().put(path, data, private=private)
