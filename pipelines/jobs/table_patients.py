"""Patients in a table of labels that differ from those in headers: the table's are used, and the change is reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crossdim.foundation.counts import count
from crossdim.pipelines.jobs.items import Item
from crossdim.pipelines.jobs.names import SourceNames
from crossdim.pipelines.jobs.scan_result import ScanResult


def tell_overridden(items: Iterable[Item], results: Sequence[ScanResult], names: SourceNames) -> list[str]:
    """Describe inputs whose patient is not the one that their header states.

    Args:
        items: of the plan.
        results: of the scan.
        names: with which patients are hashed.

    Returns:
        At most two sentences; none if no patient is overridden.
    """
    stated = {(one.source, one.path): one.header.patient_id for one in results if one.header and one.header.patient_id}
    taken: dict[str, set[str | None]] = {}
    overridden = 0
    for item in items:
        patient = stated.get((item.files[0].source, item.files[0].path))
        if patient is None:
            continue
        taken.setdefault(patient, set()).add(item.patient)
        overridden += item.patient != names.patient(patient)
    if not overridden:
        return []
    lines = [f"patients: the table names another patient than the header in {count(overridden, 'input')}; the table's is taken"]
    apart = sum(len(patients) > 1 for patients in taken.values())
    if apart:
        lines.append(
            f"patients: inputs of {count(apart, 'patient')} of the headers are of several patients by the table, or only some "
            "are in it, so that one person may be in two parts of a split; correct the table"
        )
    return lines
