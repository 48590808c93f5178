"""Names of folders as labels: labels are published in plain text, and folders are often named after patients."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.items import Item
from crossdim.pipelines.jobs.scan_result import ScanResult
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.names import printable

#: Fewer labels are classes, whatever they have. Ours.
_MIN_CLASSES = 3
#: Shorter numbers and names are in other words by chance. Ours.
_MIN_INSIDE = 4


def check_folder_labels(items: Iterable[Item], results: Sequence[ScanResult]) -> list[str]:
    """Refuse names of folders that are a patient's name or number, and report those that may be.

    Args:
        items: of the plan, labelled by folders.
        results: of the scan.

    Returns:
        A sentence where there is a label for nearly every patient or input.

    Raises:
        UsageError: if all inputs of a label are of one patient, and the label spells PatientName or PatientID of their headers.
    """
    headers = {(one.source, one.path): one.header for one in results if one.header}
    patients: dict[str, set[str]] = {}
    identified: dict[str, Item] = {}
    num_items = 0
    for item in items:
        if item.label is None:
            continue
        header = headers.get((item.files[0].source, item.files[0].path))
        patients.setdefault(item.label, set()).add((header.patient_id if header else None) or item.patient or item.uri)
        num_items += 1
        if header and any(is_spelled(name, item.label) for name in header.patient_names):
            identified[item.label] = item
    named = [label for label in identified if len(patients[label]) == 1]
    if named:
        example = printable(identified[named[0]].files[0].path)
        raise UsageError(
            f"--label folder would publish the names of {count(len(named), 'folder')}, such as that of {example}, and their "
            "DICOM headers have them as PatientName or PatientID; sort files by class, or take labels from --labels FILE.csv"
        )
    alone = all(len(found) == 1 for found in patients.values())
    if len(patients) < _MIN_CLASSES or not (alone or 2 * len(patients) >= num_items):
        return []
    return [
        f"labels: {count(num_items, 'input')} have {len(patients)} different folder names as labels, which are published "
        "readable; if folders are called after patients, take labels from --labels FILE.csv"
    ]


def is_spelled(name: str, label: str) -> bool:
    """Whether a label holds a patient's name, in any order of its parts, or number.

    Args:
        name: PatientName or PatientID, as in the header.
        label: the name of a folder.

    Returns:
        False also for names of single letters.
    """
    words, whole = _words(label), "".join(_words(label))
    for written in name.split("="):  # alphabetic, ideographic and phonetic
        parts = [part for part in _words(written) if len(part) > 1]
        if not parts:
            continue
        joined = "".join(_words(written))
        if joined == whole or set(parts) <= set(words):
            return True
        if len(joined) >= _MIN_INSIDE and (joined in whole or (len(parts) > 1 and all(part in whole for part in parts))):
            return True
    return False


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())
