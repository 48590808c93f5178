"""The objects of one or several sources, in one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from foundation.bucket import Bucket
from storage_schema.errors import StorageError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One object of one source.

    Attributes:
        source: number of the source on the command line.
        path: relative to the source.
        uri: its name in the catalog: the path, behind the source's folder name where there are several sources. It holds
            neither host nor mount point, so that a moved bucket gives the same bytes.
    """

    source: int
    path: str
    uri: str
    size: int


def folder_name(url: str) -> str:
    """The last part of a URL."""
    return url.rstrip("/").rsplit("/", 1)[-1]


def as_folder(source: Bucket) -> tuple[Bucket, str]:
    """A source that may be a single object, as a folder and a path inside it (empty for a folder)."""
    parent, slash, name = source.url.rstrip("/").rpartition("/")
    return (Bucket(parent if slash else ".", source.options), name)


def _listed(number: int, source: Bucket, prefix: str) -> tuple[Bucket, list[SourceFile]]:
    found = source.listing()
    if [entry.path for entry in found] == [""]:  # the source is itself an object
        source, name = as_folder(source)
        return source, [SourceFile(source=number, path=name, uri=name, size=found[0].size)]
    files = [SourceFile(source=number, path=entry.path, uri=prefix + entry.path, size=entry.size) for entry in found]
    if not files:
        raise StorageError(f"{source.url} holds no file; name a folder or bucket with images or volumes in it")
    return source, files


def list_sources(sources: Sequence[Bucket]) -> tuple[tuple[Bucket, ...], list[SourceFile]]:
    """All files of all sources, sorted by their names.

    Returns:
        The sources as folders, and the files.

    Raises:
        StorageError: for a source that does not exist or is empty.
        UsageError: if two sources would give one name to two files.
    """
    several = len(sources) > 1
    folders, files = [], []
    for number, source in enumerate(sources):
        folder, found = _listed(number, source, f"{folder_name(source.url)}/" if several else "")
        folders.append(folder)
        files += found
    twice = [uri for uri, count in Counter(file.uri for file in files).items() if count > 1]
    if twice:
        raise UsageError(f"two sources hold a file named {twice[0]}; give sources whose folder names differ")
    return tuple(folders), sorted(files, key=lambda file: file.uri)
