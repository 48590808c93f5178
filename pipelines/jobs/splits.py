"""Whether a test part can be drawn by patient, and what to tell of the parts that were drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from storage_schema.errors import UsageError
from storage_schema.split import SplitRule
from storage_schema.vocabulary import Split


def check_patients(patients: Iterable[str | None], split: SplitRule) -> list[str]:
    """Refuse a test part that cannot be drawn, and tell what a draw rests on.

    Args:
        patients: of every input, None where no patient is known.
        split: what is held out.

    Returns:
        Sentences for the user.

    Raises:
        UsageError: if all inputs of known patients are one patient's, as after an anonymiser that calls everybody alike.
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
    if not counts:
        return [
            f"no patient is known of {total} inputs: the test part is drawn by file, and inputs of one patient may lie in both "
            "parts; --patient-column names patients"
        ]
    if unknown:
        return [f"no patient is known of {unknown} of {total} inputs: each of them is drawn by itself"]
    return []


def tell_parts(sizes: dict[str, int], split: SplitRule) -> list[str]:
    """Sentences about parts that came out empty although a test part was asked for."""
    empty = [part for part in Split if not sizes.get(part)]
    if not split.test_fraction or not empty:
        return []
    total = sum(sizes.values())
    return [
        f"the {part} part is empty: none of {total} samples was drawn for it; choose another --test-fraction" for part in empty
    ]
