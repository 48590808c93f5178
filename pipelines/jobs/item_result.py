"""What became of one item of a task, and of items and files of equal content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from crossdim.pipelines.duplicates import Duplicate, tells_more
from crossdim.pipelines.jobs.plan import Item, ItemFile
from crossdim.pipelines.markers import FileRead, Used
from crossdim.pipelines.quarantine import Quarantined
from crossdim.storage_schema.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemResult:
    """What became of one item.

    Attributes:
        item: the input.
        samples: made of it; none if it was refused or repeats another.
        instead: why there are none.
        left_out: its files whose content another of its files has, or that are damaged and have a sound copy.
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
    """Whether more is known of an item than of another of the same content; of the first met, it is."""
    return other is None or tells_more(item.label, item.patient) > tells_more(other.label, other.patient)


def duplicate_of(item: Item, sha256: str, num_files: int) -> Duplicate:
    """An item as a repetition of content that another one has."""
    return Duplicate(uri=item.uri, sha256=sha256, label=item.label, patient=item.patient, num_files=num_files)


def without_repeats(made: Sequence[ItemResult]) -> list[ItemResult]:
    """The same, with samples of the last of equal content alone: it is what most is known of, and a shard takes no key twice."""
    last = {one.samples[0].origin.sha256: one.item.uri for one in made if one.samples}
    return [
        one
        if not one.samples or last[sha256 := one.samples[0].origin.sha256] == one.item.uri
        else replace(one, samples=[], instead=duplicate_of(one.item, sha256, len(one.item.files)))
        for one in made
    ]


def find_stored_twice(read: Sequence[tuple[ItemFile, str]]) -> Iterator[Quarantined]:
    """The quarantine rows of files that another file of the same series equals."""
    first: dict[str, ItemFile] = {}
    for file, sha256 in read:
        kept = first.setdefault(sha256, file)
        if kept is not file:
            reason = f"has the same content as {kept.uri} of the same series, which is kept"
            yield Quarantined(uri=file.uri, stage="read", rule="duplicate", reason=reason)
