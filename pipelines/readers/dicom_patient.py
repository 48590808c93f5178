"""Checks whether the files of one DICOM series are of one patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossdim.pipelines.readers.dicom_header import patient_name, read_text
from crossdim.storage_schema.errors import SampleError

#: States how many names there are, and none of them.
NAMES_NOTE = "PatientName differs between slices of one PatientID"


def check_one_patient(datasets: Sequence[Any]) -> str | None:
    """Note slices of one PatientID whose names differ: names are corrected, and change with marriage.

    Returns:
        A note if more than one name is stated.

    Raises:
        SampleError: rule ``mixed_patient`` if names and dates of birth both differ: the PatientID stands for several people.
    """
    stated = {(patient_name(dataset), read_text(dataset, "PatientBirthDate")) for dataset in datasets}
    complete = {(name, born) for name, born in stated if name and born}
    if any(name != other and born != day for name, born in complete for other, day in complete):
        raise SampleError(
            "mixed_patient",
            "slices of one PatientID state several names and dates of birth; split the series, or correct its PatientIDs",
        )
    return NAMES_NOTE if len({name for name, _ in stated if name}) > 1 else None
