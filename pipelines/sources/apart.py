"""Inputs and output apart: a dataset that is published inside its own source would be read by the next run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from foundation.bucket import Bucket
from foundation.location import contains
from pipelines.sources.listing import SourceFile
from storage_schema.errors import UsageError


def check_apart(out: Bucket, sources: Sequence[Bucket]) -> None:
    """Refuse an output inside a source and a source inside the output, whatever links lead to either.

    Raises:
        UsageError: naming the two.
    """
    for source in sources:
        if contains(source.url, out.url):
            raise UsageError(f"--out {out.where('')} lies inside the source {source.where('')}; publish beside it")
        if contains(out.url, source.url):
            raise UsageError(f"the source {source.where('')} lies inside --out {out.where('')}; publish beside it")


def check_links_apart(out: Bucket, sources: Sequence[Bucket], files: Iterable[SourceFile]) -> None:
    """Refuse a source that holds a link to a folder with the output in it, or to one in the output.

    Args:
        out: where the dataset is published.
        sources: as folders.
        files: what was listed in them.

    Raises:
        UsageError: naming the link.
    """
    if not out.is_local:
        return
    for source, folder in _folders(file for file in files if sources[file.source].is_local):
        place = sources[source].full(folder)
        if os.path.islink(place) and (contains(place, out.url) or contains(out.url, place)):
            where = sources[source].where(folder)
            raise UsageError(f"--out {out.where('')} can be read through the link {where} of a source; publish elsewhere")


def _folders(files: Iterable[SourceFile]) -> Iterator[tuple[int, str]]:
    """Every folder that a listed file lies in, once, as source and path."""
    met: set[tuple[int, str]] = set()
    for file in files:
        folder = os.path.dirname(file.path)
        while folder and (file.source, folder) not in met:
            met.add((file.source, folder))
            yield file.source, folder
            folder = os.path.dirname(folder)
