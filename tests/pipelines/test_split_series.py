"""One scan whose headers name several patients or studies: its parts are no volumes, however even each of them is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossdim.pipelines.jobs.series_groups import CONTINUED
from tests.pipelines.corpora import blob
from tests.pipelines.dicom_files import AXIAL, dicom_bytes
from tests.pipelines.test_plan import plan, scan_results_of

VOLUME = blob((16, 24, 24), 1).astype(np.int16)
SERIES = {
    **AXIAL,
    "StudyInstanceUID": "1.2",
    "SeriesInstanceUID": "1.2.3",
    "PatientID": "7",
    "RescaleSlope": 1,
    "RescaleIntercept": 0,
}


def write(folder: Path, tags: Callable[[int], dict[str, object]]) -> Path:
    """A series of 16 slices of 2 mm; ``tags`` says what the slice of each number states besides."""
    folder.mkdir(parents=True, exist_ok=True)
    for depth, pixels in enumerate(VOLUME):
        place = {"ImagePositionPatient": [0, 0, 2 * depth]}
        (folder / f"{depth:02d}.dcm").write_bytes(dicom_bytes(pixels, **{**SERIES, **place, **tags(depth)}))
    return folder


def outcome(folder: Path) -> tuple[list[int], Counter[str]]:
    """The number of slices of each input that is planned, and the rules by which others are refused."""
    made = plan(scan_results_of(folder), "mixed-superpatches:tiny")
    items = [item for task in made.tasks for item in task.items]
    return sorted(len(item.files) for item in items), Counter(one.rule for one in made.refused)


@pytest.mark.parametrize(
    ("tags", "parts"),
    [
        (lambda n: {"PatientID": "7" if n % 2 else ""}, 2),
        (lambda n: {"PatientID": "7" if n % 4 else ""}, 2),
        (lambda n: {"PatientID": "" if n in (3, 8, 9) else "7"}, 2),
        (lambda n: {"PatientID": "" if n == 15 else "7"}, 2),
        (lambda n: {"StudyInstanceUID": f"1.2.{n % 2}"}, 2),
        (lambda n: {"StudyInstanceUID": f"1.2.{n % 3}"}, 3),
        (lambda n: {"StudyInstanceUID": f"1.2.{n}"}, 16),
        (lambda n: {"StudyInstanceUID": f"1.2.{max(n, 12)}"}, 4),
        (lambda n: {"IssuerOfPatientID": "A" if n % 2 else ""}, 2),
        (lambda n: {"ImageOrientationPatient": [0, 0.6, 0.8, 1, 0, 0], "ImagePositionPatient": [0, 1.6 * n, -1.2 * n]}
         | {"PatientID": f"{n % 2}"}, 2),
    ],
)  # fmt: skip
def test_parts_that_lie_between_each_other_are_refused(tags, parts, tmp_path):
    assert outcome(write(tmp_path, tags)) == ([], Counter({"split_series": parts}))


def test_a_part_without_series_uid_is_found_by_its_folder(tmp_path):
    made = outcome(write(tmp_path, lambda n: {"SeriesInstanceUID": None, "PatientID": "7" if n % 2 else ""}))

    assert made == ([], Counter({"split_series": 2}))


@pytest.mark.parametrize(
    "place",
    [
        [0, 0, 2.0],  # over each other
        [0, 0, 2.7],  # on no common grid
        [40, 0, 3.0],  # beside each other
        [0, 0, 32.0],  # one behind the other
        [0, 0, 1000.0],
    ],
)
def test_patients_to_whom_an_anonymiser_gave_one_uid_stay_two_volumes(place, tmp_path):
    write(tmp_path / "a", lambda _: {})
    write(tmp_path / "b", lambda n: {"PatientID": "8", "ImagePositionPatient": [place[0], place[1], place[2] + 2 * n]})

    assert outcome(tmp_path) == ([16, 16], Counter())


@pytest.mark.parametrize(
    ("tags", "noted"),
    [
        (lambda n: {"PatientID": "7" if n < 8 else ""}, 2),
        (lambda n: {"StudyInstanceUID": f"1.2.{n // 4}"}, 4),
        (lambda n: {"PatientID": "7" if n < 8 else "8", "ImagePositionPatient": [0, 0, 2 * n + 3 * (n >= 8)]}, 0),
        (lambda n: {"PatientID": "7" if n < 8 else "8", "ImagePositionPatient": [9 * (n >= 8), 0, 2 * n]}, 0),
        (lambda n: {"PatientID": "7" if n < 8 else "8", "SeriesInstanceUID": f"1.2.{n // 8}"}, 0),
        (lambda n: {}, 0),
    ],
)
def test_halves_of_one_series_under_two_patients_are_noted(tags, noted, tmp_path):
    """They are two volumes, of which a split may put one person into both of its parts."""
    made = plan(scan_results_of(write(tmp_path, tags)), "mixed-superpatches:tiny")
    items = [item for task in made.tasks for item in task.items]

    assert [item.note for item in items].count(CONTINUED) == noted
    assert len(items) == (noted or (1 if tags(15) == {} else 2))


@pytest.mark.integration
def test_many_patients_of_one_uid_are_planned_in_seconds(tmp_path):
    results = scan_results_of(write(tmp_path, lambda _: {}))
    many = [
        replace(one, uri=f"{patient}/{one.uri}", header=replace(one.header, patient_id=str(patient)))
        for patient in range(150)
        for one in results[:4]
        if one.header
    ]

    assert len([item for task in plan(many, "mixed-superpatches:tiny").tasks for item in task.items]) == 150


def test_the_reason_holds_no_value_of_a_header(tmp_path):
    write(tmp_path, lambda n: {"PatientID": "DOE7" if n % 2 else "", "StudyInstanceUID": f"1.2.77.{n % 2}"})
    refused = plan(scan_results_of(tmp_path), "mixed-superpatches:tiny").refused

    assert all("2 patients" in one.reason and "2 values of StudyInstanceUID" in one.reason for one in refused)
    assert not any("DOE" in one.reason or "77" in one.reason for one in refused)
