"""Inputs of equal content under several names: the one of which most is known is kept, unless what is known is contradictory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossdim.foundation.counts import list_some
from crossdim.pipelines.quarantine import Quarantined
from crossdim.storage_schema.patient import known_patient

#: Others of the same content that a reason names; with all, the reasons of a group would be as long as its square.
MAX_OTHERS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """An input whose content is already in the catalog under another name."""

    uri: str
    sha256: str
    label: str | None
    patient: str | None = None
    num_files: int = 1


def tells_more(label: str | None, patient: str | None) -> tuple[bool, bool]:
    """Rank how much is known of an input, to compare it with another of the same content.

    Args:
        label: of the input, if known.
        patient: of the input, if known.

    Returns:
        A pair that sorts by label first, then by patient; known is larger.
    """
    return label is not None, patient is not None


def settle_duplicates(
    rows: Iterable[dict[str, object]], duplicates: Iterable[Duplicate], num_files: Mapping[str, int] | None = None
) -> tuple[list[dict[str, object]], list[Quarantined]]:
    """Decide what is kept of content that several inputs have.

    Args:
        rows: catalog rows in order; those of one input share uri and hash.
        duplicates: inputs that were found to be duplicates before they were packed, and so have no rows.
        num_files: of the inputs that have rows, by their names; one file each where it says nothing.

    Returns:
        The rows that are kept: those of the first name that most is known of, or of none where labels or patients differ; and a
        quarantine row for every other name, with rule ``duplicate``, ``label_conflict`` or ``patient_conflict``.
    """
    rows, counts = list(rows), num_files or {}
    names: dict[str, dict[str, Duplicate]] = {}
    for row in rows:
        uri, sha256 = str(row["source_uri"]), str(row["source_sha256"])
        label = None if row["label"] is None else str(row["label"])
        one = Duplicate(uri=uri, sha256=sha256, label=label, patient=known_patient(row), num_files=counts.get(uri, 1))
        names.setdefault(sha256, {}).setdefault(uri, one)
    with_rows = {uri for same in names.values() for uri in same}
    for duplicate in duplicates:
        names[duplicate.sha256][duplicate.uri] = duplicate
    kept: set[str] = set()
    refused: list[Quarantined] = []
    for same in (list(found.values()) for found in names.values()):
        if len({one.label for one in same} - {None}) > 1:
            refused += _refuse_label_conflict(same)
        elif len({one.patient for one in same} - {None}) > 1:
            refused += _refuse_patient_conflict(same)
        else:
            best = max((one for one in same if one.uri in with_rows), key=lambda one: tells_more(one.label, one.patient))
            kept.add(best.uri)
            refused += [_refuse_duplicate(one, best) for one in same if one is not best]
    return [row for row in rows if row["source_uri"] in kept], refused


def _refuse_duplicate(duplicate: Duplicate, kept: Duplicate) -> Quarantined:
    lost = (
        f", without this one's label {duplicate.label!r}" if duplicate.label != kept.label and duplicate.label is not None else ""
    )
    lost += ", without this one's patient" if duplicate.patient != kept.patient and duplicate.patient is not None else ""
    reason = f"has the same content as {kept.uri}, which is kept{lost}"
    return Quarantined(uri=duplicate.uri, stage="publish", rule="duplicate", reason=reason, num_files=duplicate.num_files)


def _refuse_label_conflict(same: Sequence[Duplicate]) -> list[Quarantined]:
    """All names of one content whose labels differ: it is not known which of them is right."""
    rows = []
    for one in same:
        others = list_some(
            [f"{other.uri} ({other.label!r})" for other in same if other is not one and other.label != one.label], MAX_OTHERS
        )
        reason = f"has label {one.label!r}, but the same content as {others}; keep one of them"
        rows.append(Quarantined(uri=one.uri, stage="publish", rule="label_conflict", reason=reason, num_files=one.num_files))
    return rows


def _refuse_patient_conflict(same: Sequence[Duplicate]) -> list[Quarantined]:
    """All names of one content that belong to several patients: it is not known which of them is right."""
    reason = "has the same content as {}, of another patient or of none; correct the table of patients, or keep one of them"
    return [
        Quarantined(
            uri=one.uri,
            stage="publish",
            rule="patient_conflict",
            reason=reason.format(list_some([other.uri for other in same if other is not one], MAX_OTHERS)),
            num_files=one.num_files,
        )
        for one in same
    ]
