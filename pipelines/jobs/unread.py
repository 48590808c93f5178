"""Files that look like images and are not read, for the report: no images are left out silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.storage_schema.names import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadFormat:
    """How many files of one format look like images and are not read, and the path of one of them."""

    num_files: int
    example: str


def count_unread_formats(results: Sequence[ScanResult]) -> dict[str, UnreadFormat]:
    """Count files that look like images of formats that are not read, by format, the most frequent first."""
    found: dict[str, list[str]] = {}
    for result in results:
        if result.is_image:
            found.setdefault(result.format, []).append(result.path)
    ordered = sorted(found.items(), key=lambda one: (-len(one[1]), one[0]))
    return {name: UnreadFormat(num_files=len(paths), example=min(paths)) for name, paths in ordered}


def describe_unread(unread: Mapping[str, UnreadFormat]) -> str:
    """Describe the files that look like images and are not read, by format."""
    count = sum(one.num_files for one in unread.values())
    kinds = ", ".join(f"{name} {one.num_files} (such as {printable(one.example)})" for name, one in unread.items())
    files = "1 file looks like an image or may hold some" if count == 1 else f"{count} files look like images or may hold some"
    return f"{files}, of formats that this version does not read: {kinds}"
