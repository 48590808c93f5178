"""Series of which slices are missing: the longest even run is kept, the rest refused by name, or all of it on demand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines.readers.header_info import SliceHeader
from crossdim.pipelines.readers.slice_gaps import find_longest_run
from tests.pipelines.corpora import blob
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, read_series
from tests.pipelines.test_plan import plan, scan_results_of

RECIPE = "mixed-superpatches:tiny"


def header(depth_mm: float, *, beside_mm: float = 0.0) -> SliceHeader:
    return SliceHeader(
        rows=8,
        columns=9,
        position_mm=(0.0, beside_mm, depth_mm),
        orientation=(1, 0, 0, 0, 1, 0),
        spacing_mm=(2.0, 2.0),
        thickness_mm=2.0,
    )


def longest_by_counting(places: list[int]) -> list[int]:
    """Consecutive whole numbers have one difference to their rank; the first of the longest groups."""
    groups = [list(group) for _, group in groupby(enumerate(sorted(places)), key=lambda one: one[1] - one[0])]
    return [place for _, place in max(groups, key=len)]


@given(st.integers(8, 40), st.floats(0.4, 8), st.floats(-300, 300), st.data())
def test_the_run_is_the_one_found_by_counting_places(count, spacing, start, data):
    """In any order of files, wherever slices are missing, as long as most steps are of one spacing."""
    missing = data.draw(st.sets(st.integers(1, count - 2), min_size=1, max_size=max(1, count // 4 - 1)))
    places = data.draw(st.permutations([place for place in range(count) if place not in missing]))
    expected = longest_by_counting(places)
    found = find_longest_run([header(start + spacing * place) for place in places], "refuse")
    if len(expected) < max(3, 0.25 * len(places)):
        assert found is None
    else:
        assert found is not None
        assert sorted(places[number] for number in found) == expected


@given(st.lists(st.floats(1.0, 1.55), min_size=3, max_size=30), st.data())
def test_steps_that_differ_by_half_are_no_gaps(steps, data):
    depths = data.draw(st.permutations([0.0, *np.cumsum(steps)]))
    assert find_longest_run([header(depth) for depth in depths], "refuse") is None


@pytest.mark.parametrize(
    "places",
    [
        [0, 1, 3, 4],
        [0, 1, 3, 4, 6, 7, 9, 10],
        [0, 1.3, 2, 3, 8, 8.7, 10],
        [4 * run + place for run in range(5) for place in range(3)],
    ],
    ids=["runs of two", "many runs of two", "uneven runs", "runs of less than a quarter"],
)
def test_runs_that_are_short_or_uneven_are_not_kept(places):
    assert find_longest_run([header(2.0 * place) for place in places], "refuse") is None


def test_several_slices_of_a_position_count_once_and_stay_together():
    places = [0, 1, 1, 1, 1, 2, 5, 6, 7, 8]
    assert find_longest_run([header(2.0 * place) for place in places], "refuse") == [6, 7, 8, 9]


def test_a_tilted_run_is_kept_where_tilts_are_corrected():
    headers = [header(2.0 * place, beside_mm=0.6 * place) for place in (0, 1, 2, 3, 6, 7)]
    assert find_longest_run(headers, "correct") == [0, 1, 2, 3]
    assert find_longest_run(headers, "refuse") is None


def test_slices_of_several_kinds_are_not_taken_apart_by_gaps():
    """What differs is at fault, and is to be named."""
    headers = [header(2.0 * place) for place in (0, 1, 2, 3, 6, 7)]
    assert find_longest_run(headers, "refuse") == [0, 1, 2, 3]
    for changed in ({"orientation": (1, 0, 0, 0, 0, -1)}, {"rows": 9}, {"spacing_mm": (3.0, 2.0)}, {"position_mm": None}):
        assert find_longest_run([*headers[:5], replace(headers[5], **changed)], "refuse") is None


VOXELS = blob((16, 24, 24), 3).astype(np.int16)
TAGS = {**AXIAL, "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "RescaleSlope": 1, "RescaleIntercept": 0}


@pytest.fixture
def series_with_gaps(tmp_path):
    """Slices 3 and 14 of 16 are missing: runs of three, ten and one."""
    for depth, pixels in enumerate(VOXELS):
        if depth not in (3, 14):
            data = dicom_bytes(pixels, **TAGS, ImagePositionPatient=[-5, 9, 30 + 2 * depth])
            (tmp_path / f"{depth * 7 % 31:02d}-{depth:02d}.dcm").write_bytes(data)
    return tmp_path


def test_a_plan_keeps_the_longest_run_and_names_every_other_slice(series_with_gaps):
    made = plan(scan_results_of(series_with_gaps), RECIPE)
    (item,) = [item for task in made.tasks for item in task.items]
    (beyond,) = made.refused

    assert item.note == "slices are missing, the longest even run of them kept (10 of 14 slices)"
    assert (beyond.rule, beyond.num_files) == ("beyond_gap", 4)
    assert beyond.uri == f"{item.uri}:beyond-gap"
    assert "10 of 14 slices" in beyond.reason
    assert sorted(file.path[-6:-4] for file in item.files) == [f"{depth:02d}" for depth in range(4, 14)]

    sample = read_series(tuple((series_with_gaps / file.path).read_bytes() for file in item.files))
    assert np.array_equal(sample.array[0], VOXELS[4:14])
    assert np.allclose(np.array(sample.affine)[:3, 3], [5, -9, 38])
    assert sample.spacing_mm == (2, 2, 2)


def test_a_series_with_gaps_is_refused_whole_on_demand(series_with_gaps):
    made = plan(scan_results_of(series_with_gaps), RECIPE, "read.gaps=refuse")
    assert not made.tasks
    assert [(one.rule, one.num_files) for one in made.refused] == [("irregular_spacing", 14)]


def test_each_volume_of_a_series_has_its_own_run(tmp_path):
    """The slice at 5 is missing in both echoes, so that each has all positions of the series."""
    for echo, depth in ((echo, depth) for echo in (1, 2) for depth in range(12) if depth != 5):
        data = dicom_bytes(VOXELS[depth] + echo, **TAGS, ImagePositionPatient=[0, 0, 2 * depth], EchoTime=5 * echo)
        (tmp_path / f"{echo}-{depth}.dcm").write_bytes(data)
    made = plan(scan_results_of(tmp_path), RECIPE)
    items = [item for task in made.tasks for item in task.items]
    assert [(item.uri[-7:], len(item.files)) for item in items] == [(":echo-1", 6), (":echo-2", 6)]
    assert all("told by EchoTime; slices are missing" in str(item.note) for item in items)
    assert Counter((one.uri.rpartition(":")[2], one.num_files) for one in made.refused) == Counter(
        [("echo-1-beyond-gap", 5), ("echo-2-beyond-gap", 5)]
    )


@pytest.mark.parametrize(
    ("folder", "kept"), [("dicom_series/hard_irregular_spacing", slice(0, 3)), ("broken/dicom/missing_slice", slice(0, 4))]
)
def test_real_series_with_a_gap_keep_the_slices_of_their_longest_run(real_data, folder, kept):
    """Sorted and rescaled by pydicom alone; of two runs of four slices the first is kept."""
    paths = list((real_data / folder).iterdir())
    made = plan(scan_results_of(real_data / folder), RECIPE)
    (item,) = [item for task in made.tasks for item in task.items]
    assert sum(one.num_files or 0 for one in made.refused) + len(item.files) == len(paths)

    datasets = sorted(map(pydicom.dcmread, paths), key=lambda one: float(one.ImagePositionPatient[2]))[kept]
    expected = [one.pixel_array * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0)) for one in datasets]
    sample = read_series(tuple((real_data / folder / file.path).read_bytes() for file in item.files))
    assert np.allclose(sample.array[0], expected)
    origin = np.array([float(value) for value in datasets[0].ImagePositionPatient])
    assert np.allclose(np.array(sample.affine)[:3, 3], origin * [-1, -1, 1])
