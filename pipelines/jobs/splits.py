"""Checks whether a test part can be drawn by patient, and describes the parts that were drawn."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.items import Item
from crossdim.pipelines.sources.npz_paths import PARTS, parse_path
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.patient import known_patient
from crossdim.storage_schema.split import SplitRule
from crossdim.storage_schema.vocabulary import Split

#: A share of samples that is further from the share asked for is reported. Our choice.
FAR = 0.1
_OTHER_OUT = ", and another --out, for this one holds finished rows of this split"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a split: its samples, the patients that are known, and the samples of none of these."""

    samples: int = 0
    patients: int = 0
    without_patient: int = 0

    def __str__(self) -> str:
        """Such as ``8 samples of 3 patients``, or ``8 samples, 5 of 3 patients and 3 of unknown patients``."""
        if not self.patients:
            return count(self.samples, "sample")
        samples, patients = count(self.samples, "sample"), count(self.patients, "patient")
        if not self.without_patient:
            return f"{samples} of {patients}"
        return f"{samples}, {self.samples - self.without_patient} of {patients} and {self.without_patient} of unknown patients"


def count_parts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Part]:
    """The parts of a split that hold samples, by name.

    Args:
        rows: of the catalog, with key, split, patient and source_sha256.
    """
    keys: dict[str, set[str]] = defaultdict(set)
    patients: dict[str, set[str]] = defaultdict(set)
    unknown: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        part, key = str(row["split"]), str(row["key"])
        keys[part].add(key)
        patient = known_patient(row)
        if patient is None:
            unknown[part].add(key)
        else:
            patients[part].add(patient)
    return {
        part: Part(samples=len(keys[part]), patients=len(patients[part]), without_patient=len(unknown[part]))
        for part in sorted(keys)
    }


def check_patients(patients: Iterable[str | None], split: SplitRule) -> list[str]:
    """Refuse a test part that cannot be drawn, and report what a draw is based on.

    Args:
        patients: of every input, None where no patient is known.
        split: what is held out.

    Returns:
        Sentences for the user.

    Raises:
        UsageError: if all inputs of known patients are one patient's, as after an anonymiser that calls everybody alike.
        StorageError: if all patients are known and all are drawn for one part.
    """
    if not split.test_fraction:
        return []
    counts = Counter(patients)
    unknown = counts.pop(None, 0)
    total = unknown + counts.total()
    if split.by == "file":
        return ["the test part is drawn by file (--split-by file): inputs of one patient may lie in both parts"]
    if len(counts) == 1 and (not unknown or counts.total() > 1):
        raise UsageError(
            f"--test-fraction {split.test_fraction:g} is a share of patients, but one and the same patient is stated in "
            f"{counts.total()} of {total} inputs, and in the others none: an anonymiser may have called everybody alike. "
            "Name patients with --labels FILE.csv --patient-column COLUMN, or draw by file with --split-by file"
        )
    if counts and not unknown:
        drawn = {split.draw(patient) for patient in counts if patient is not None}
        if len(drawn) == 1:
            raise StorageError(
                _describe_empty(next(part for part in Split if part not in drawn), count(len(counts), "patient"), split)
            )
    if not counts:
        return [
            f"no patient is known of {count(total, 'input')}: the test part is drawn by file, and inputs of one patient may lie "
            "in both parts; --patient-column names patients"
        ]
    if unknown:
        return [f"no patient is known of {unknown} of {count(total, 'input')}: each of them is drawn by itself"]
    return []


def tell_stated(items: Iterable[Item]) -> list[str]:
    """Describe the inputs whose part is stated by their source; none of them is drawn.

    Args:
        items: of the plan.

    Returns:
        One sentence; none if no source states parts.
    """
    counts = Counter(image.part for item in items if (image := parse_path(item.files[0].path)))
    if not counts:
        return []
    listed = ", ".join(f"{part} {counts[part]:,}" for part in PARTS if counts[part])
    val = "; val counts as train, and the catalog's note names it" if counts["val"] else ""
    return [f"official parts of {count(counts.total(), 'image')} are kept ({listed}){val}"]


def _describe_empty(part: Split, drawn_from: str, split: SplitRule) -> str:
    return (
        f"the {part} part would be empty: with --test-fraction {split.test_fraction:g} none of {drawn_from} is drawn for it, so "
        "nothing is published; choose another --test-fraction"
    )


def check_parts(parts: Mapping[str, Part], split: SplitRule) -> None:
    """Refuse a split with an empty part, before it is published.

    Args:
        parts: that hold samples, by name.
        split: the rule that they were drawn by.

    Raises:
        StorageError: saying which part is empty.
    """
    for part in Split:
        if split.test_fraction and part not in parts:
            raise StorageError(
                _describe_empty(part, count(sum(one.samples for one in parts.values()), "sample"), split) + _OTHER_OUT
            )


def tell_parts(parts: Mapping[str, Part], split: SplitRule) -> list[str]:
    """Describe what each part holds, and whether its share of the samples is far from the share of patients that was asked for.

    Args:
        parts: that hold samples, by name.
        split: the rule that they were drawn by.

    Returns:
        One sentence; none without a test part that was asked for or stated by a source.
    """
    if not split.test_fraction and len(parts) < 2:
        return []
    line = "split: " + ", ".join(f"{part} {parts.get(part, Part())}" for part in Split)
    share = parts.get(Split.TEST, Part()).samples / max(1, sum(one.samples for one in parts.values()))
    if split.test_fraction and abs(share - split.test_fraction) > FAR:
        why = "the draw is by chance" if split.by == "file" else "patients are drawn whole, by chance, and have different numbers"
        line += f"; test has {share:.0%} of the samples where {split.test_fraction:.0%} was asked for, since {why}"
    return [line]
