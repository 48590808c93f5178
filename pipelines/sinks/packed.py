"""An object ready to be written, with the catalog rows of what lies in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from storage_schema.manifest import ObjectEntry
from storage_schema.vocabulary import Split

#: Digits of the hash that draws the split.
_HASH_DIGITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedObject:
    """Bytes of one object, and one catalog row for each sample in it."""

    path: str
    role: str
    data: bytes
    rows: tuple[dict[str, object], ...]

    def entry(self) -> ObjectEntry:
        """How the manifest names this object."""
        return ObjectEntry(path=self.path, size=len(self.data), sha256=hashlib.sha256(self.data).hexdigest(), role=self.role)


def split_of(patient: str, test_fraction: float) -> Split:
    """The part of the dataset that a patient belongs to, drawn by hash: the same in every dataset, whatever else is in it."""
    draw = int(hashlib.sha256(f"split:{patient}".encode()).hexdigest()[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS
    return Split.TEST if draw < test_fraction else Split.TRAIN
