"""Enhanced multi-frame DICOM: functional groups, shared and of each frame, against the same volume written slice by slice."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from crossdim.pipelines.readers.dicom_header import read_header
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, dicom_dataset, read_series
from tests.pipelines.test_plan import plan, scan_results_of

VOLUME = np.random.default_rng(3).integers(0, 4000, (6, 10, 12)).astype(np.int16)


def group(**sequences: dict[str, Any]) -> Dataset:
    """A functional group: sequences of one item each."""
    made = Dataset()
    for name, elements in sequences.items():
        item = Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        setattr(made, name, [item])
    return made


def frame_groups(order: Sequence[int], slopes: Sequence[float], **more: Sequence[dict[str, Any]]) -> list[Dataset]:
    return [
        group(
            PlanePositionSequence={"ImagePositionPatient": [0, 0, 2 * place]},
            PixelValueTransformationSequence={"RescaleSlope": slope, "RescaleIntercept": -5, "RescaleType": "US"},
            **{name: elements[number] for name, elements in more.items()},
        )
        for number, (place, slope) in enumerate(zip(order, slopes, strict=True))
    ]


def enhanced(planes: np.ndarray, groups: Sequence[Dataset], **tags: object) -> pydicom.FileDataset:
    dataset = dicom_dataset(planes[0], Modality="MR", **tags)
    dataset.PixelData = planes.tobytes()
    dataset.NumberOfFrames = len(planes)
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence={"ImageOrientationPatient": AXIAL["ImageOrientationPatient"]},
            PixelMeasuresSequence={"PixelSpacing": AXIAL["PixelSpacing"], "SliceThickness": AXIAL["SliceThickness"]},
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = list(groups)
    return dataset


def saved(dataset: pydicom.FileDataset) -> bytes:
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def header(data: bytes) -> HeaderInfo:
    info = read_header(data, ReadRules())
    assert isinstance(info, HeaderInfo)
    return info


def read(data: bytes) -> Sample:
    return READERS["dicom-frames"].decode(RawItem(uri="x", files=(data,)))


ORDER, SLOPES = (3, 0, 5, 1, 4, 2), (1.0, 0.5, 2.0, 1.5, 1.0, 0.25)


def test_frames_make_the_volume_that_the_same_slices_make():
    """In any order, each by its own rescale."""
    data = saved(enhanced(VOLUME, frame_groups(ORDER, SLOPES)))
    rescale = {"RescaleIntercept": -5, "RescaleType": "US", "Modality": "MR"}
    slices = tuple(
        dicom_bytes(plane, **AXIAL, ImagePositionPatient=[0, 0, 2 * place], RescaleSlope=slope, **rescale)
        for plane, place, slope in zip(VOLUME, ORDER, SLOPES, strict=True)
    )
    sample, expected, info = read(data), read_series(slices), header(data)

    np.testing.assert_array_equal(sample.array, expected.array)
    assert sample.affine == expected.affine
    assert sample.spacing_mm == expected.spacing_mm == info.spacing_mm
    assert info.shape == VOLUME.shape
    np.testing.assert_allclose(np.array(info.affine), np.array(expected.affine)[:, [2, 1, 0, 3]])


def test_compressed_frames_are_those_that_were_compressed():
    dataset = enhanced(VOLUME, frame_groups(ORDER, SLOPES))
    expected = read(saved(dataset))
    dataset.compress(RLELossless)
    np.testing.assert_array_equal(read(saved(dataset)).array, expected.array)


def test_positions_in_private_sequences_are_not_those_of_the_frame():
    groups = frame_groups(ORDER, SLOPES)
    for one in groups:
        other = Dataset()
        other.ImagePositionPatient = [99, 99, 99]
        one.add_new(0x20050010, "LO", "VENDOR")
        one.add_new(0x2005100F, "SQ", [other])
    assert read(saved(enhanced(VOLUME, groups))).affine == read(saved(enhanced(VOLUME, frame_groups(ORDER, SLOPES)))).affine


@pytest.mark.parametrize(
    ("order", "reason"),
    [((0, 1, 2, 4, 5, 6), "a slice may be missing"), ((0, 1, 2, 0, 1, 2), "2 volumes in one file, such as time-1 and time-2")],
)
def test_frames_that_make_no_volume_or_several_are_refused_with_the_reason(order, reason, tmp_path):
    (tmp_path / "a.dcm").write_bytes(saved(enhanced(VOLUME, frame_groups(order, SLOPES))))
    made = plan(scan_results_of(tmp_path), "mixed-superpatches:tiny")
    (refused,) = made.refused
    assert refused.rule == "multi_frame"
    assert f"6 frames in one file: {reason}" in refused.reason or reason in refused.reason
    with pytest.raises(SampleError, match="multi_frame"):
        read((tmp_path / "a.dcm").read_bytes())


def test_times_in_one_file_are_told_by_their_tag():
    times = [{"TemporalPositionIndex": 1 + number // 3} for number in range(6)]
    data = saved(enhanced(VOLUME, frame_groups((0, 1, 2, 0, 1, 2), SLOPES, FrameContentSequence=times)))
    info = header(data)
    assert info.affine is None
    assert info.slice
    assert "2 volumes in one file" in info.slice.frames_fault


def test_frames_without_groups_and_groups_of_other_numbers_are_refused():
    dataset = enhanced(VOLUME, frame_groups(ORDER, SLOPES))
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(SampleError, match="6 frames, and positions and the like of 5"):
        read_header(saved(dataset), ReadRules())
    del dataset.PerFrameFunctionalGroupsSequence
    assert header(saved(dataset)).affine is None
    with pytest.raises(SampleError, match="nothing says where each of them lies"):
        read(saved(dataset))


@pytest.mark.parametrize("change", [-1, 1])
def test_pixels_of_fewer_or_more_frames_than_stated_are_refused(change):
    dataset = enhanced(VOLUME, frame_groups(ORDER, SLOPES))
    size = VOLUME[0].nbytes
    dataset.PixelData = dataset.PixelData[:-size] if change < 0 else dataset.PixelData + VOLUME[0].tobytes()
    with pytest.raises(SampleError, match=r"truncated|pixel_length"):
        read(saved(dataset))


def test_a_plan_takes_each_file_as_a_volume(tmp_path):
    planes = np.repeat(np.repeat(VOLUME, 3, axis=1), 3, axis=2)
    for number in range(2):
        (tmp_path / f"{number}.dcm").write_bytes(
            saved(enhanced(planes + number, frame_groups(ORDER, SLOPES), SeriesInstanceUID="1.2"))
        )
    made = plan(scan_results_of(tmp_path), "mixed-superpatches:tiny")
    items = [item for task in made.tasks for item in task.items]
    assert not made.refused
    assert [(len(item.files), item.decoder) for item in items] == [(1, "dicom-frames")] * 2
    assert len({item.patient for item in items}) == 1  # volumes of one series whose patient is not known belong to one split
    assert items[0].patient
