"""Checks that inputs and output are apart: a dataset published inside its own source would be read by the next run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import contains
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.names import escape_name


def check_apart(out: Bucket, sources: Sequence[Bucket]) -> None:
    """Refuse an output inside a source and a source inside the output, after following links.

    Args:
        out: the dataset.
        sources: folders or prefixes.

    Raises:
        UsageError: naming the two.
    """
    for source in sources:
        if contains(source.url, out.url):
            raise UsageError(f"--out {out.where('')} lies inside the source {source.where('')}; publish beside it")
        if contains(out.url, source.url):
            raise UsageError(f"the source {source.where('')} lies inside --out {out.where('')}; publish beside it")


def check_links_apart(out: Bucket, sources: Sequence[Bucket]) -> None:
    """Refuse a source that holds a link to a folder with the output in it, or to one in the output.

    Args:
        out: the dataset; only a local one can be linked to.
        sources: folders or prefixes.

    Raises:
        UsageError: naming the link.
    """
    if not out.is_local:
        return
    for source in sources:
        for link in _folder_links(source.root) if source.is_local else ():
            if contains(link, out.url) or contains(out.url, link):
                where = source.where(escape_name(os.path.relpath(link, source.root)))
                raise UsageError(f"--out {out.where('')} can be read through the link {where} of a source; publish elsewhere")


def _folder_links(root: str) -> Iterator[str]:
    """Every link to a folder below ``root``, through links too, and also to empty folders, which no listing shows."""
    folders, met = [root], set[tuple[int, int]]()
    while folders:
        try:
            found = os.stat(folder := folders.pop())
            if (found.st_dev, found.st_ino) in met:
                continue
            met.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as entries:
                inner = [(entry.path, entry.is_symlink()) for entry in entries if _is_folder(entry)]
        except OSError:  # the listing says what cannot be read
            continue
        yield from (path for path, is_link in inner if is_link)
        folders += [path for path, _ in inner]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False
