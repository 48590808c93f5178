"""Where slices lie: even grids that were rounded are read, anything else is refused and names the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK
from hypothesis import example, given
from hypothesis import strategies as st

from crossdim.pipelines import decoder_process
from crossdim.pipelines.readers.dicom_header import read_slice_header
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.slice_grid import fit_slice_grid
from crossdim.pipelines.readers.slice_order import stack_slices
from crossdim.storage_schema.errors import SampleError
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, dicom_dataset, read_series, series_bytes

ITK: Any = SimpleITK  # its wrappers are not annotated
VOLUME = np.random.default_rng(2).integers(0, 2000, (9, 10, 12)).astype(np.int16)
RESCALE = {"RescaleSlope": 1, "RescaleIntercept": 0, "Modality": "MR"}


def series_at(positions: list[list[object]], **tags: object) -> tuple[bytes, ...]:
    """A series with these positions, written as they are given: texts keep their digits."""
    return tuple(
        dicom_bytes(
            VOLUME[number % len(VOLUME)] + number,
            **{**AXIAL, **RESCALE, "ImagePositionPatient": ("DS", [str(value) for value in position]), **tags},
        )
        for number, position in enumerate(positions)
    )


def refusal(files: tuple[bytes, ...]) -> SampleError:
    with pytest.raises(SampleError) as caught:
        read_series(files)
    return caught.value


@pytest.mark.parametrize(("spacing", "digits"), [(1.25, 1), (0.625, 1), (0.75, 1), (5.33333, 0), (0.33333, 2)])
@pytest.mark.parametrize("start", [0, -341.57])
def test_positions_rounded_by_their_writer_are_an_even_grid(spacing, digits, start):
    """Written with 0, 1 or 2 decimals; the spacing found is the true one within the rounding of both ends."""
    depths = [f"{start + spacing * number:.{digits}f}" for number in range(20)]
    error = 10.0**-digits / 19
    sample = read_series(series_at([[0, 0, depth] for depth in depths]))

    assert sample.spacing_mm[0] == pytest.approx(spacing, abs=error * 1.01)
    deviation = float(str(sample.extra["note"]).split("up to ")[1].split(" mm")[0])
    assert 0 < deviation <= 10.0**-digits


def test_rounding_by_more_than_a_tenth_of_the_spacing_leaves_no_grid():
    """Slices of 1.25 mm in whole millimetres: 0, 1, 2, 4, 5 might as well lack a slice."""
    error = refusal(series_at([[0, 0, f"{1.25 * number:.0f}"] for number in range(9)]))

    assert error.rule == "irregular_spacing"


@example(0.5, 0.35, 4)  # 0.4, 0.8, 1.4, 1.8: most of the gaps are 0.4
@given(st.floats(0.5, 8), st.floats(-500, 500), st.integers(3, 60))
def test_every_grid_rounded_to_a_tenth_is_accepted(spacing, start, count):
    depths = np.round(start + spacing * np.arange(count), 1)
    positions = np.column_stack([np.zeros(count), np.zeros(count), depths])
    grid = fit_slice_grid(positions, np.array([0, 0, 1.0]), rounding_mm=np.full(3, 0.05), pixel_mm=1.0)

    assert grid.step_mm[2] == pytest.approx(spacing, abs=0.1 / (count - 1) + 1e-9)


@given(st.floats(0.5, 8), st.integers(3, 60), st.data())
def test_a_missing_slice_is_never_taken_for_rounding(spacing, count, data):
    """Even with positions in tenths, wherever the slice is missing."""
    numbers = np.delete(np.arange(count + 1), data.draw(st.integers(1, count - 1)))
    positions = np.column_stack([np.zeros(count), np.zeros(count), np.round(spacing * numbers, 1)])
    with pytest.raises(SampleError) as caught:
        fit_slice_grid(positions, np.array([0, 0, 1.0]), rounding_mm=np.full(3, 0.05), pixel_mm=1.0)

    assert caught.value.rule == "irregular_spacing"


def test_more_digits_leave_less_to_rounding():
    """The same deviation is rounding where one digit is written, and irregular where three are."""
    depths = [0, 0.8, 1.5, 2.2, 3]
    assert read_series(series_at([[0, 0, depth] for depth in depths])).spacing_mm[0] == 0.75
    error = refusal(series_at([[0, 0, f"{depth:.3f}"] for depth in [*depths, 3.751]]))

    assert error.rule == "irregular_spacing"


@pytest.mark.parametrize("jitter", [0.0, 0.03, 0.07, 0.1, 0.3])
@pytest.mark.parametrize("count", [8, 9])
def test_jitter_below_two_percent_of_the_spacing_is_accepted_and_told(jitter, count):
    """Every second slice is off by the jitter: an even grid lies between, half of it away."""
    files = series_at([[0, 0, f"{2 * number + jitter * (number % 2):.6f}"] for number in range(count)])
    if jitter / 2 > 0.02 * 2:
        assert refusal(files).rule == "irregular_spacing"
        return
    sample = read_series(files)

    assert sample.spacing_mm[0] == pytest.approx(2, abs=0.02)
    assert ("off an even grid" in str(sample.extra.get("note"))) == (jitter > 0)


@pytest.mark.parametrize("count", [2, 3, 4, 15, 40])
@pytest.mark.parametrize("start", [(10, 20, 30), (0.04, -7.77, 3.16)])
def test_oblique_rounded_positions_are_an_even_grid(count, start):
    """Rounding acts along each axis of the patient, not along the normal; few slices seem to be stacked aslant by it."""
    normal = np.array([0.0, -0.6, 0.8])
    positions = [[f"{value:.1f}" for value in 1.25 * number * normal + start] for number in range(count)]
    sample = read_series(series_at(positions, ImageOrientationPatient=[1, 0, 0, 0, 0.8, 0.6]))

    assert sample.spacing_mm[0] == pytest.approx(1.25, abs=0.1 * 1.4 / (count - 1))


def test_a_tilted_gantry_is_no_rounding():
    """Five degrees, with positions in tenths and in full."""
    for digits in (1, 6):
        positions = [[0, f"{0.0875 * 2.5 * number:.{digits}f}", 2.5 * number] for number in range(12)]
        with pytest.raises(SampleError) as caught:
            read_series(series_at(positions), rules=ReadRules(tilt="refuse"))
        assert caught.value.rule == "gantry_tilt"


@pytest.mark.parametrize(("spacing", "digits"), [(1.25, 1), (1.25, 6), (3, 0), (0.7, 1)])
@pytest.mark.parametrize("rescale", [(1, -1024), (-0.5, 300.25), (2.5, 0)])
def test_a_series_is_that_of_simpleitk(tmp_path, spacing, digits, rescale):
    """GDCM's series reader: the same values, and the same place to the digits written."""
    files = series_at(
        [[-12.5, 7, f"{5 + spacing * number:.{digits}f}"] for number in range(9)],
        RescaleSlope=rescale[0],
        RescaleIntercept=rescale[1],
        Modality="CT",
        SeriesInstanceUID="1.2.3.4",
        StudyInstanceUID="1.2.3",
    )
    for number, data in enumerate(files):
        (tmp_path / f"{number:02d}.dcm").write_bytes(data)
    image = ITK.ReadImage(ITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    sample = read_series(files)

    assert np.allclose(sample.array[0], ITK.GetArrayFromImage(image), rtol=1e-6)
    assert np.allclose(sample.spacing_mm[::-1], image.GetSpacing(), atol=10.0**-digits / 8)
    assert np.allclose(np.diag([-1, -1, 1]) @ np.array(sample.affine)[:3, 3], image.GetOrigin())


def test_the_slice_at_fault_is_named_by_its_number():
    """In any order of the files; the rule's own file, not the first."""
    even = [[0, 0, 2 * number] for number in range(8)]
    cases = {
        "irregular_spacing": ([*even[:5], *even[6:]], {}, None),
        "repeated_position": ([*even, even[3]], {}, None),
        "shifted_slices": ([*even[:4], [1.5, 0, 8], *even[5:]], {}, (4,)),
    }
    for rule, (positions, tags, files) in cases.items():
        error = refusal(series_at(positions, **tags))
        assert error.rule == rule
        assert len(error.files) in (1, 2)
        assert files is None or error.files == files
    assert refusal(series_at(cases["irregular_spacing"][0])).files == (4, 5)
    assert set(refusal(series_at(cases["repeated_position"][0])).files) == {3, 8}


@pytest.mark.parametrize(
    ("rule", "tags"),
    [
        ("mixed_orientation", {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}),
        ("mixed_spacing", {"PixelSpacing": [3, 2]}),
        ("missing_position", {"ImagePositionPatient": None}),
        ("missing_orientation", {"ImageOrientationPatient": None}),
        ("missing_spacing", {"PixelSpacing": None}),
        ("mixed_photometric", {"PhotometricInterpretation": "MONOCHROME1"}),
        ("rescale", {"RescaleSlope": 0}),
        ("missing_rescale", {"RescaleSlope": None, "RescaleIntercept": None}),
        ("truncated", {"PixelData": ("OW", b"\0\0")}),
        ("mixed_modality", {"Modality": "MR"}),
        ("mixed_modality", {"Modality": "XX"}),
    ],
)
@pytest.mark.parametrize("place", [0, 3, 8])
def test_one_file_that_spoils_a_series_is_named(rule, tags, place):
    """Also where it is the first, and through the decoder process; a scout is such a file."""
    ct = {**RESCALE, "Modality": "CT"}
    files = list(series_bytes(VOLUME, **ct))
    files[place] = dicom_bytes(VOLUME[0] + 1, **{**AXIAL, **ct, "ImagePositionPatient": [0, 0, 2 * place], **tags})
    error = refusal(tuple(files))
    with pytest.raises(SampleError) as caught:
        decoder_process.decode("dicom-series", RawItem(uri="s", files=tuple(files)))

    assert (error.rule, error.files) == (rule, (place,))
    assert (caught.value.rule, caught.value.files) == (rule, (place,))


@pytest.mark.parametrize(
    ("tags", "depth"),
    [
        ({"SpacingBetweenSlices": 3}, 3),
        ({"SpacingBetweenSlices": -3}, 3),
        ({"SliceThickness": 4}, 4),
        ({"SliceThickness": 4, "SpacingBetweenSlices": 0}, 4),
        ({"SliceThickness": 4, "SpacingBetweenSlices": ""}, 4),
        ({"SliceThickness": -4, "SpacingBetweenSlices": ("LO", "thin")}, 4),
        ({}, None),
    ],
)
def test_the_depth_of_a_single_slice_comes_from_whichever_tag_states_it(tags, depth):
    files = series_bytes(VOLUME[:1], **{**RESCALE, "SliceThickness": None, **tags})
    if depth is None:
        assert refusal(files).rule == "missing_spacing"
    else:
        assert read_series(files).spacing_mm == (depth, 2, 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_positions_win_over_every_other_tag(sign):
    tags = {"SpacingBetweenSlices": 7 * sign, "SliceThickness": 5}
    sample = read_series(series_bytes(VOLUME, **RESCALE, **tags))

    assert sample.spacing_mm == (2, 2, 2)
    assert np.array_equal(sample.array[0], VOLUME)


def test_decimals_are_those_written():
    dataset = dicom_dataset(VOLUME[0], **AXIAL, ImagePositionPatient=("DS", ["-12.50", "3", "1.5e-3"]))
    assert read_slice_header(dataset, "").position_decimals == (2, 0, 4)
    assert stack_slices([read_slice_header(dataset, "")]).shape == (1, 10, 12)
