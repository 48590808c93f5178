"""One CT series in twelve variations that archives hold: each is read voxel by voxel as it was made, or refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from crossdim.pipelines.jobs.items import ItemFile
from crossdim.storage_schema.errors import SampleError
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, read_series
from tests.pipelines.test_plan import plan, scan_results_of

#: Values rise with the position, so that another order of slices shows.
VOXELS = np.random.default_rng(1).integers(0, 300, (20, 32, 32)).astype(np.int16)
VOXELS += np.arange(20, dtype=np.int16)[:, None, None] * 20
LOCALIZER = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImagePositionPatient": [0, -50, 0]} | {
    "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]
}
SAGITTAL = [0, 1, 0, 0, 0, -1]
#: Rows by which each slice of the tilted series lies beside the one before it: a whole number, so that nothing is interpolated.
TILT_ROWS = 1


def write_slice(folder: Path, name: object, pixels: np.ndarray, depth: int, **tags: object) -> None:
    stated = {**AXIAL, "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "RescaleSlope": 1, "RescaleIntercept": 0}
    stated |= {"ImagePositionPatient": [0, 0, 2 * depth], "InstanceNumber": depth + 1}
    (folder / f"{name}.dcm").write_bytes(dicom_bytes(pixels, **{**stated, **tags}))


def write_variation(folder: Path, what: str) -> None:
    for depth, pixels in enumerate(VOXELS):
        if what == "two slices missing" and depth in (7, 13):
            continue
        tags: dict[str, object] = {
            "InstanceNumber shuffled": {"InstanceNumber": depth * 7 % 20},
            "no InstanceNumber": {"InstanceNumber": None},
            "gantry tilt": {"ImagePositionPatient": [0, 2 * TILT_ROWS * depth, 2 * depth]},
            "slope differs per slice": {"RescaleSlope": 1 + depth % 2},
            "sagittal": {"ImageOrientationPatient": SAGITTAL, "ImagePositionPatient": [-2 * depth, 0, 0]},
        }.get(what, {})
        one_smaller = what == "one slice of another size" and depth == 5
        write_slice(folder, depth, pixels[:30] if one_smaller else pixels, depth, **tags)
    if what == "one slice twice":
        shutil.copy(folder / "3.dcm", folder / "again.dcm")
    elif what == "one slice exported twice":
        write_slice(folder, "again", VOXELS[3], 3, SOPInstanceUID="1.2.99", ImageComments="exported again")
    elif what == "scout in the series":
        write_slice(folder, "scout", VOXELS[0], 0, **LOCALIZER)
    elif what == "two series in one folder":
        for depth, pixels in enumerate(VOXELS):
            write_slice(folder, f"other-{depth}", pixels + 1000, depth, SeriesInstanceUID="1.2.4")
    elif what == "one file truncated":
        (folder / "9.dcm").write_bytes((folder / "9.dcm").read_bytes()[:-500])


def tilted() -> np.ndarray:
    """Each slice a row further down than the one before, in air."""
    grid = np.full((20, 32 + 19 * TILT_ROWS, 32), -1000.0)
    for depth, pixels in enumerate(VOXELS):
        grid[depth, depth * TILT_ROWS : depth * TILT_ROWS + 32] = pixels
    return grid


def read_files(folder: Path, files: Iterable[ItemFile]) -> np.ndarray:
    return read_series(tuple((folder / file.path).read_bytes() for file in files)).array[0]


#: What comes out of each: volumes, and rules with numbers of files that the plan refuses.
EXPECTED: dict[str, tuple[list[np.ndarray], dict[str, int]]] = {
    "two slices missing": ([VOXELS[:7]], {"beyond_gap": 11}),
    "one slice twice": ([VOXELS], {}),
    "one slice exported twice": ([VOXELS], {}),
    "scout in the series": ([VOXELS], {"scout": 1}),
    "two series in one folder": ([VOXELS, VOXELS + 1000], {}),
    "InstanceNumber shuffled": ([VOXELS], {}),
    "gantry tilt": ([tilted()], {}),
    "one file truncated": ([], {}),
    "no InstanceNumber": ([VOXELS], {}),
    "one slice of another size": ([], {"mixed_size": 20}),
    "slope differs per slice": ([VOXELS * (1 + np.arange(20)[:, None, None] % 2)], {}),
    "sagittal": ([VOXELS], {}),
}


@pytest.mark.parametrize("what", EXPECTED)
def test_a_variation_is_read_as_it_was_made_or_refused_by_name(what, tmp_path):
    """Slices 7 and 13 missing leave a first run of seven; the truncated file is found by the decoder."""
    write_variation(tmp_path, what)
    made = plan(scan_results_of(tmp_path), "mixed-superpatches:tiny")
    expected, rules = EXPECTED[what]
    items = [item for task in made.tasks for item in task.items]

    assert {one.rule: one.num_files for one in made.refused} == rules
    assert sum(len(item.files) for item in items) + sum(rules.values()) == len(list(tmp_path.iterdir()))
    if what == "one file truncated":
        with pytest.raises(SampleError, match="truncated") as caught:
            read_files(tmp_path, items[0].files)
        assert [items[0].files[number].path for number in caught.value.files] == ["9.dcm"]
        return
    found = sorted((read_files(tmp_path, item.files) for item in items), key=lambda volume: float(volume.max()))
    assert len(found) == len(expected)
    assert all(np.array_equal(volume, truth) for volume, truth in zip(found, expected, strict=True))
