"""An object ready to be written, with the catalog rows of its samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from crossdim.storage_schema.manifest import ObjectEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedObject:
    """Bytes of one object, and one catalog row for each sample in it."""

    path: str
    role: str
    data: bytes
    rows: tuple[dict[str, object], ...]

    def entry(self) -> ObjectEntry:
        """The manifest's entry of this object."""
        return ObjectEntry(path=self.path, size=len(self.data), sha256=hashlib.sha256(self.data).hexdigest(), role=self.role)
