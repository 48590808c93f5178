"""Series whose slices are stacked aslant of their normal: straightened by moving slices within their planes, and recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK

from crossdim.pipelines.readers.raw import ReadRules
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from tests.pipelines.dicom_files import dicom_bytes, read_series
from tests.pipelines.test_plan import plan, scan_results_of

ITK: Any = SimpleITK  # its wrappers are not annotated
ROW_MM, COLUMN_MM, STEP_MM = 0.8, 0.5, 2.5
SHAPE = (7, 24, 30)
FIRST = np.array([-12.5, 7.0, 40.0])
#: Direction of columns (increasing row), of rows (increasing column): upright, and turned about the patient's x axis.
UPRIGHT = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
TURNED = np.array([[0.0, np.cos(0.3), -np.sin(0.3)], [1.0, 0.0, 0.0]])
VALUES = np.random.default_rng(5).integers(-900, 2000, SHAPE).astype(np.int16)


def place_slices(axes: np.ndarray, shift_mm: tuple[float, float]) -> np.ndarray:
    """Positions of slices that are each moved beside the one before, along rows and columns."""
    normal = np.cross(axes[1], axes[0])
    return FIRST + np.arange(SHAPE[0])[:, None] * (STEP_MM * normal + shift_mm @ axes)


def tilted_series(values: np.ndarray, axes: np.ndarray, shift_mm: tuple[float, float], **tags: object) -> tuple[bytes, ...]:
    return tuple(
        dicom_bytes(
            pixels,
            ImagePositionPatient=[float(f"{value:.7f}") for value in position],
            ImageOrientationPatient=[float(f"{value:.12f}") for value in [*axes[1], *axes[0]]],
            PixelSpacing=[ROW_MM, COLUMN_MM],
            **{"RescaleSlope": 1, "RescaleIntercept": 0, **tags},
        )
        for pixels, position in zip(values, place_slices(axes, shift_mm), strict=True)
    )


def inside(sample: Sample) -> np.ndarray:
    assert sample.outside is not None
    return ~sample.outside


def world_of(sample: Sample) -> np.ndarray:
    """(D, H, W, 3): millimetres of every voxel, LPS."""
    indices = np.stack([*np.indices(sample.array.shape[1:]), np.ones(sample.array.shape[1:])], axis=-1)
    ras: np.ndarray = indices @ np.array(sample.affine).T
    return ras[..., :3] * [-1, -1, 1]


@pytest.mark.parametrize("axes", [UPRIGHT, TURNED], ids=["upright", "turned"])
@pytest.mark.parametrize("shift_mm", [(0.9, 0.0), (-0.9, 0.0), (0.0, 0.37), (-0.63, 0.41)])
def test_a_linear_field_has_its_values_at_every_place(axes, shift_mm):
    """Closed form: linear interpolation of a field that is linear in x, y and z has no error, wherever the grid lies."""
    coefficients = np.array([3.0, -5.0, 2.0])
    rows, columns = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[2]), indexing="ij")
    beside = rows[..., None] * ROW_MM * axes[0] + columns[..., None] * COLUMN_MM * axes[1]
    field = (place_slices(axes, shift_mm)[:, None, None] + beside) @ coefficients
    stored = np.round(field * 64).astype(np.int16)
    sample = read_series(tilted_series(stored, axes, shift_mm, RescaleSlope=1 / 64))

    expected = world_of(sample) @ coefficients
    found = inside(sample)
    assert np.abs(sample.array[0] - expected)[found].max() <= 0.5 / 64 + 1e-3
    assert found.sum() >= 0.9 * np.prod(SHAPE)
    assert sample.spacing_mm == (STEP_MM, ROW_MM, COLUMN_MM)


@pytest.mark.parametrize("axes", [UPRIGHT, TURNED], ids=["upright", "turned"])
@pytest.mark.parametrize("shift_mm", [(0.9, 0.0), (-0.9, 0.0), (-0.63, 0.41)])
def test_each_slice_is_what_simpleitk_makes_of_it(axes, shift_mm):
    """Every slice is an ITK image of its own, at its own place, resampled on the plane of our grid."""
    sample = read_series(tilted_series(VALUES, axes, shift_mm))
    direction = np.column_stack([axes[1], axes[0], np.cross(axes[1], axes[0])])
    for depth, position in enumerate(place_slices(axes, shift_mm)):
        expected = resample_by_itk(sample, depth, VALUES[depth], position, direction)
        assert np.abs(sample.array[0, depth] - expected)[inside(sample)[depth]].max() < 0.05


def resample_by_itk(sample: Sample, depth: int, values: np.ndarray, position: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """One slice, three times behind itself so that ITK has a volume, on the plane of the sample's grid."""
    step_mm, row_mm, column_mm = sample.spacing_mm or (0, 0, 0)
    image = ITK.GetImageFromArray(np.stack([values] * 3).astype(np.float32))
    image.SetSpacing((column_mm, row_mm, step_mm))
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin((position - step_mm * direction[:, 2]).tolist())
    grid = ITK.Image(sample.array.shape[3], sample.array.shape[2], 1, ITK.sitkFloat32)
    grid.SetSpacing(image.GetSpacing())
    grid.SetDirection(image.GetDirection())
    grid.SetOrigin((np.diag([-1, -1, 1, 1]) @ np.array(sample.affine) @ [depth, 0, 0, 1])[:3].tolist())
    resampled: np.ndarray = ITK.GetArrayFromImage(ITK.Resample(image, grid, ITK.Transform(), ITK.sitkLinear, -32768.0))[0]
    return resampled


def test_a_real_tilted_series_is_what_simpleitk_makes_of_its_slices(real_data):
    """Four slices of a CT, tilted by 14 degrees; values and places are pydicom's."""
    paths = sorted((real_data / "dicom_series" / "hard_gantry_tilt").iterdir())
    sample = read_series(tuple(path.read_bytes() for path in paths))
    datasets = sorted((pydicom.dcmread(path) for path in paths), key=lambda one: float(one.ImagePositionPatient[2]))
    along_row, down = np.array(datasets[0].ImageOrientationPatient, float).reshape(2, 3)
    direction = np.column_stack([along_row, down, np.cross(along_row, down)])
    for depth, dataset in enumerate(datasets):
        values = dataset.pixel_array * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        position = np.array(dataset.ImagePositionPatient, float)
        expected = resample_by_itk(sample, depth, values, position, direction)
        found = inside(sample)[depth]
        assert found.sum() >= 511 * 512
        assert np.abs(sample.array[0, depth] - expected)[found].max() < 0.5


def test_a_shift_of_whole_pixels_moves_values_and_changes_none():
    sample = read_series(tilted_series(VALUES, UPRIGHT, (2 * ROW_MM, -COLUMN_MM)))
    _, rows, columns = SHAPE
    last = SHAPE[0] - 1
    expected = np.full((SHAPE[0], rows + 2 * last, columns + last), -1000.0)
    for depth, pixels in enumerate(VALUES):
        expected[depth, 2 * depth : 2 * depth + rows, last - depth : last - depth + columns] = pixels
    assert np.array_equal(sample.array[0], expected)
    assert inside(sample).sum() == VALUES.size


def test_the_note_tells_angle_and_distance_and_a_straight_series_has_none():
    """atan(0.9 / 2.5) is 19.8 degrees; six steps of 0.9 mm are 6.75 rows of 0.8 mm."""
    tilted = read_series(tilted_series(VALUES, UPRIGHT, (0.9, 0.0)))
    assert "gantry tilt of 19.8 degrees corrected, slices moved by up to 6.8 pixels" in str(tilted.extra["note"]).split("; ")
    straight = read_series(tilted_series(VALUES, UPRIGHT, (0.0, 0.0)))
    assert "note" not in straight.extra
    assert np.array_equal(straight.array[0], VALUES)


@pytest.mark.parametrize("shift_mm", [(0.9, 0.3), (-0.9, -0.3)])
def test_padding_is_not_interpolated_into_values(shift_mm):
    padded = VALUES.copy()
    padded[:, :, :4] = padded[:, -4:] = -2000
    sample = read_series(tilted_series(padded, UPRIGHT, shift_mm, PixelPaddingValue=("SS", -2000)))
    assert sample.array.min() == -1000
    assert sample.array[0][inside(sample)].min() >= VALUES.min()


@pytest.mark.parametrize(
    ("count", "shift_mm", "rule", "words"),
    [
        (7, 0.9, "refuse", "--tilt correct"),
        (7, 2.6, "correct", "no gantry tilts by more than 45"),
        (2, 0.9, "correct", "cannot be told from one slice out of place"),
    ],
)
def test_stacks_that_are_not_straightened_are_refused(count, shift_mm, rule, words):
    with pytest.raises(SampleError, match=words) as caught:
        read_series(tilted_series(VALUES, UPRIGHT, (shift_mm, 0.0))[:count], rules=ReadRules(tilt=rule))
    assert caught.value.rule == "gantry_tilt"


def test_one_slice_beside_a_tilted_stack_is_refused():
    files = list(tilted_series(VALUES, UPRIGHT, (0.9, 0.0)))
    files[3] = tilted_series(VALUES, UPRIGHT, (1.2, 0.0))[3]
    with pytest.raises(SampleError) as caught:
        read_series(tuple(files))
    assert (caught.value.rule, caught.value.files) == ("shifted_slices", (3,))


def test_the_plan_reserves_boxes_of_the_straight_grid_and_obeys_the_option(tmp_path):
    """45 rows more than a slice (59 steps of 0.75 rows): 109 rows are two boxes of 64."""
    values = np.random.default_rng(6).integers(0, 900, (60, 64, 64)).astype(np.int16)
    for depth, pixels in enumerate(values):
        tags = {"ImagePositionPatient": [0, 1.5 * depth, 2 * depth], "PixelSpacing": [2, 2], "SeriesInstanceUID": "1.2.3"}
        tags |= {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "RescaleSlope": 1, "RescaleIntercept": 0}
        (tmp_path / f"{depth}.dcm").write_bytes(dicom_bytes(pixels, **tags))
    results = scan_results_of(tmp_path)
    (item,) = [item for task in plan(results, "mixed-superpatches:tiny").tasks for item in task.items]
    (refused,) = plan(results, "mixed-superpatches:tiny", "read.tilt=refuse").refused

    sample = read_series(tuple(path.read_bytes() for path in tmp_path.iterdir()))
    assert sample.array.shape == (1, 60, 64 + 45, 64)
    assert item.boxes == 2
    assert (refused.rule, refused.num_files) == ("gantry_tilt", 60)
