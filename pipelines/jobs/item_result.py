"""The result of one item of a task, and items and files of equal content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from crossdim.pipelines.duplicates import Duplicate, tells_more
from crossdim.pipelines.jobs.items import Item, ItemFile
from crossdim.pipelines.markers import FileRead, Used
from crossdim.pipelines.quarantine import Quarantined
from crossdim.storage_schema.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemResult:
    """The result of one item.

    Attributes:
        item: the input.
        samples: made of it; none if it was refused or repeats another.
        instead: why there are none.
        left_out: its files whose content another of its files has, or that are damaged and have an intact copy.
        files: as they were read; none if one of them could not be.
    """

    item: Item
    samples: list[Sample]
    instead: Quarantined | Duplicate | None
    left_out: tuple[Quarantined, ...]
    files: tuple[FileRead, ...]

    @property
    def quarantine(self) -> tuple[Quarantined, ...]:
        """Its quarantine rows: one of the whole item, or one of each file that is left out."""
        if self.instead:
            return (self.instead,) if isinstance(self.instead, Quarantined) else ()
        return self.left_out

    @property
    def repeats(self) -> tuple[Duplicate, ...]:
        """The item, if it repeats another of its task."""
        return (self.instead,) if isinstance(self.instead, Duplicate) else ()

    @property
    def used(self) -> tuple[Used, ...]:
        """The item, if samples were made of it."""
        return () if self.instead else (Used(uri=self.item.uri, num_files=len(self.item.files) - len(self.left_out)),)


def knows_more(item: Item, other: Item | None) -> bool:
    """Whether more is known of an item than of another of the same content.

    Args:
        item: the item.
        other: the earlier item of that content; None if there was none.

    Returns:
        True if ``other`` is None, or if ``item`` has a label or patient that it lacks.
    """
    return other is None or tells_more(item.label, item.patient) > tells_more(other.label, other.patient)


def build_duplicate(item: Item, sha256: str, num_files: int) -> Duplicate:
    """Build the record of an item whose content another item has.

    Args:
        item: the item.
        sha256: of its content.
        num_files: that it has.

    Returns:
        The record, from which it is decided what is kept.
    """
    return Duplicate(uri=item.uri, sha256=sha256, label=item.label, patient=item.patient, num_files=num_files)


def drop_repeats(made: Sequence[ItemResult]) -> list[ItemResult]:
    """Drop the samples of all but the last item of equal content, of which most is known: a shard holds each key once."""
    last = {one.samples[0].origin.sha256: one.item.uri for one in made if one.samples}
    return [
        one
        if not one.samples or last[sha256 := one.samples[0].origin.sha256] == one.item.uri
        else replace(one, samples=[], instead=build_duplicate(one.item, sha256, len(one.item.files)))
        for one in made
    ]


def find_stored_twice(read: Sequence[tuple[ItemFile, str]]) -> Iterator[Quarantined]:
    """Find files that are equal to another file of the same series, as quarantine rows."""
    first: dict[str, ItemFile] = {}
    for file, sha256 in read:
        kept = first.setdefault(sha256, file)
        if kept is not file:
            reason = f"has the same content as {kept.uri} of the same series, which is kept"
            yield Quarantined(uri=file.uri, stage="read", rule="duplicate", reason=reason)
