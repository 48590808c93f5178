"""Equal content under several names: one is kept, unless the names carry labels that do not agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossdim.pipelines.quarantine import Quarantined


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """An input whose content stands in the catalog under another name already."""

    uri: str
    sha256: str
    label: str | None
    num_files: int = 1


def settle_duplicates(
    rows: Iterable[dict[str, object]], duplicates: Iterable[Duplicate], num_files: Mapping[str, int] | None = None
) -> tuple[list[dict[str, object]], list[Quarantined]]:
    """Decide what is kept of content that was met more than once.

    Args:
        rows: catalog rows in order; those of one input share uri and hash.
        duplicates: inputs that were found to be duplicates before they were packed, and so have no rows.
        num_files: of the inputs that have rows, by their names; one file each where it says nothing.

    Returns:
        The rows that are kept: those of the first name, or of none where labels differ; and a quarantine row for every other
        name, with rule ``duplicate`` or ``label_conflict``.
    """
    rows, counts = list(rows), num_files or {}
    names: dict[str, dict[str, Duplicate]] = {}
    for row in rows:
        uri, sha256 = str(row["source_uri"]), str(row["source_sha256"])
        label = None if row["label"] is None else str(row["label"])
        names.setdefault(sha256, {}).setdefault(uri, Duplicate(uri=uri, sha256=sha256, label=label, num_files=counts.get(uri, 1)))
    for duplicate in duplicates:
        names[duplicate.sha256][duplicate.uri] = duplicate
    kept: set[str] = set()
    refused: list[Quarantined] = []
    for same in names.values():
        first, *others = same.values()
        if len({one.label for one in same.values()} - {None}) > 1:
            refused += _in_conflict(list(same.values()))
        else:
            kept.add(first.uri)
            refused += [_as_duplicate(one, first) for one in others]
    return [row for row in rows if row["source_uri"] in kept], refused


def _as_duplicate(duplicate: Duplicate, kept: Duplicate) -> Quarantined:
    lost = (
        f", without this one's label {duplicate.label!r}" if duplicate.label != kept.label and duplicate.label is not None else ""
    )
    reason = f"has the same content as {kept.uri}, which is kept{lost}"
    return Quarantined(uri=duplicate.uri, stage="publish", rule="duplicate", reason=reason, num_files=duplicate.num_files)


def _in_conflict(same: Sequence[Duplicate]) -> list[Quarantined]:
    """All names of one content whose labels differ: which of them is right cannot be known."""
    rows = []
    for one in same:
        others = ", ".join(f"{other.uri} ({other.label!r})" for other in same if other is not one and other.label != one.label)
        reason = f"has label {one.label!r}, but the same content as {others}; keep one of them"
        rows.append(Quarantined(uri=one.uri, stage="publish", rule="label_conflict", reason=reason, num_files=one.num_files))
    return rows
