"""Object store: the interface of the three kinds of store, whose objects are addressed by exact names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

#: Prefix of the names of half-written local files; listings leave them out.
TEMPORARY_PREFIX = ".crossdim-tmp-"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object of a listing.

    Attributes:
        path: relative to what was listed, as :func:`crossdim.storage_schema.names.escape_name` writes it.
        size: in bytes; 0 if there is a problem.
        version: changes when the content does: the ETag of a store, the modification time (ns) of a file; "" if unknown.
        changed_at: when the store last wrote it or what is told of it, in ns since 1970; 0 if unknown. Nobody sets it back, as
            modification times are; stores count it in seconds.
        problem: why the object cannot be read, a key of :data:`PROBLEMS`; "" if it can.
    """

    path: str
    size: int
    version: str = field(default="", compare=False)
    changed_at: int = field(default=0, compare=False)
    problem: str = ""


#: Problems that a listing may find in the place of an object, and what they mean.
PROBLEMS = {
    "dangling_link": "is a link to something that does not exist",
    "link_loop": "is a link that leads back to itself or to a folder that holds it",
    "repeated_link": "is a link to a folder whose files are listed under another name",
    "unreadable": "may not be read by this user",
    "special_file": "is neither a file nor a folder: a pipe, socket or device",
}


#: The problems that hide nothing: what such a link leads to is listed under another name.
NOTHING_HIDDEN = frozenset({"link_loop", "repeated_link"})


class ObjectStore(Protocol):
    """Objects by their exact names: no character of a name is a pattern. Errors are those of the store's client."""

    def read(self, name: str) -> bytes:
        """All bytes of an object."""

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read part of an object.

        Args:
            name: of the object.
            offset: first byte.
            length: number of bytes.

        Returns:
            ``length`` bytes, or fewer if the object ends earlier.
        """

    def exists(self, name: str) -> bool:
        """Whether an object, or a folder with objects, is there."""

    def list(self, name: str) -> list[StoredObject]:
        """Every object below the folder ``name``, or the object itself under the path ""; FileNotFoundError if there is none."""

    def put(self, name: str, data: bytes) -> None:
        """Write an object completely or not at all.

        Args:
            name: of the object; one that is there is replaced.
            data: its bytes.
        """

    def create(self, name: str, data: bytes) -> None:
        """Write an object completely if there is none of its name; otherwise raise FileExistsError.

        Args:
            name: of the object.
            data: its bytes.
        """

    def delete(self, name: str) -> None:
        """Remove an object and every object below it as a folder; FileNotFoundError if there is none."""

    def delete_exactly(self, names: Sequence[str]) -> None:
        """Remove objects, and nothing below them as folders; one that is gone already is no error."""

    def delete_empty_folders(self, name: str) -> None:
        """Remove the folder ``name`` and the folders in it, as far as they hold nothing and may be removed."""
