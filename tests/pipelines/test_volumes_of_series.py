"""Series that hold several volumes: by time, echo and other tags where slices share positions, and by orientation."""

from __future__ import annotations

import io
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines.jobs.source_inputs import locate_unplanned
from crossdim.pipelines.readers.dicom_header import read_header, read_slice_header
from crossdim.pipelines.readers.header_info import HeaderInfo, SliceHeader, VolumeTags
from crossdim.pipelines.readers.raw import ReadRules
from crossdim.pipelines.readers.series_split import split_series
from crossdim.pipelines.readers.volume_tags import read_volume_tags
from tests.pipelines.corpora import blob
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, dicom_dataset
from tests.pipelines.test_plan import NAMING, plan, scan_results_of

DEPTHS = 5
TRANSVERSE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def header(
    depth: int, *, orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0), localizer: bool = False, **tags: Any
) -> SliceHeader:
    position = (0.0, 0.0, 2.0 * depth) if orientation[5] == 0 else (0.0, 2.0 * depth, 0.0)
    return SliceHeader(
        rows=8,
        columns=9,
        position_mm=position,
        orientation=orientation,
        spacing_mm=(2.0, 2.0),
        thickness_mm=2.0,
        localizer=localizer,
        tags=VolumeTags(**tags),
    )


def depths_of(headers: list[SliceHeader], numbers: tuple[int, ...]) -> list[int]:
    return sorted(round((headers[number].position_mm or (0, 0, 0))[2] / 2) for number in numbers)


#: What several volumes of one series state: (name of the parts, tags of each volume in order).
VOLUMES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "echoes": ("echo", [{"echo_ms": 4.9}, {"echo_ms": 7.4}, {"echo_ms": 12.0}]),
    "times": ("time", [{"temporal_position": n} for n in range(1, 13)]),
    "times without a tag for them": ("time", [{"acquired_s": 10.0 * n} for n in range(3)]),
    "phases of the heart": ("trigger", [{"trigger_ms": 31.5 * n} for n in range(4)]),
    "magnitude and phase": ("component", [{"component": 1}, {"component": 2}]),
    "diffusion": ("b-value", [{"b_value": 0.0}, {"b_value": 1000.0}]),
    "directions of one b-value": ("direction", [{"b_value": 700.0, "gradient": (float(n), 1.0, 0.0)} for n in range(3)]),
    "without and with gradient": ("b-value", [{"b_value": 0.0}, {"b_value": 700.0, "gradient": (0.0, 1.0, 0.0)}]),
    "echoes of two times": ("echo-time", [{"echo_ms": e, "temporal_position": t} for e, t in product((5.0, 9.0), (1, 2, 3))]),
    "components of echoes of two times": (
        "component-echo-time",
        [{"component": c, "echo_ms": e, "temporal_position": t} for c, e, t in product((1, 2), (5.0, 9.0), (1, 2))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", VOLUMES)
@given(data=st.data())
def test_volumes_are_told_by_their_tags_in_any_order_of_files(what, data):
    name, volumes = VOLUMES[what]
    made = [(place, header(depth, **tags, instance=7)) for place, tags in enumerate(volumes) for depth in range(DEPTHS)]
    made = data.draw(st.permutations(made))
    headers = [one for _, one in made]
    parts = split_series(headers)

    assert [part.name for part in parts] == [f"{name}-{n:0{len(str(len(volumes)))}d}" for n in range(1, len(volumes) + 1)]
    for place, part in enumerate(parts):
        assert {made[number][0] for number in part.numbers} == {place}
        assert depths_of(headers, part.numbers) == list(range(DEPTHS))
        assert part.missing == 0


@given(data=st.data())
def test_without_tags_slices_of_a_position_follow_each_other_by_instance_number(data):
    """Acquired slice by slice or volume by volume, time grows with the number at each position."""
    by_slice = data.draw(st.booleans())
    made = [
        (time, header(depth, instance=(depth * 3 + time) if by_slice else (time * DEPTHS + depth)))
        for time in range(3)
        for depth in range(DEPTHS)
    ]
    made = data.draw(st.permutations(made))
    parts = split_series([one for _, one in made])
    assert [part.name for part in parts] == ["time-1", "time-2", "time-3"]
    assert [{made[number][0] for number in part.numbers} for part in parts] == [{0}, {1}, {2}]


def test_a_series_that_was_broken_off_gives_its_complete_volumes_and_tells_the_other():
    headers = [header(depth, temporal_position=time, instance=1) for time in (1, 2, 3) for depth in range(DEPTHS)][:-2]
    assert [part.missing for part in split_series(headers)] == [0, 0, 2]


def test_a_slice_that_was_taken_again_is_a_part_of_its_own():
    headers = [header(depth, acquisition=1) for depth in range(DEPTHS)] + [header(3, acquisition=2)]
    parts = split_series(headers)
    assert [(len(part.numbers), part.missing) for part in parts] == [(DEPTHS, 0), (1, DEPTHS - 1)]


@pytest.mark.parametrize(
    "headers",
    [
        [header(depth, instance=depth, acquisition=depth // 2, acquired_s=float(depth)) for depth in range(DEPTHS)],
        [header(depth, instance=depth) for depth in range(DEPTHS)] * 2,
        [header(depth, instance=depth) for depth in range(DEPTHS)] + [header(2, instance=99)],
        [header(0, temporal_position=time) for time in range(8)],
        [header(depth) for depth in range(DEPTHS)] + [header(0, orientation=CORONAL)],
    ],
    ids=["one volume", "stored twice", "one slice more", "one position", "one slice of another orientation"],
)
def test_what_cannot_be_told_apart_stays_whole(headers):
    (part,) = split_series(headers)
    assert part.name == ""
    assert part.numbers == tuple(range(len(headers)))


def test_stacks_of_several_orientations_are_volumes_and_scouts_beside_a_stack_are_told():
    stacks = [header(depth) for depth in range(DEPTHS)] + [header(depth, orientation=CORONAL) for depth in range(3)]
    assert [(part.name, len(part.numbers)) for part in split_series(stacks)] == [("orientation-1", DEPTHS), ("orientation-2", 3)]
    scout = [header(0, orientation=CORONAL, localizer=True)] + [header(depth) for depth in range(DEPTHS)]
    assert [part.numbers for part in split_series(scout)] == [tuple(range(1, DEPTHS + 1)), (0,)]


@pytest.mark.parametrize(
    ("tags", "name", "value"),
    [
        ({"EchoTime": "4.92"}, "echo_ms", 4.92),
        ({"EchoNumbers": 2}, "echo_ms", 2.0),
        ({"TemporalPositionIdentifier": 3}, "temporal_position", 3),
        ({"TriggerTime": "31.5"}, "trigger_ms", 31.5),
        ({"AcquisitionNumber": 4}, "acquisition", 4),
        ({"AcquisitionTime": "010203.5"}, "acquired_s", 3723.5),
        ({"InstanceNumber": 12}, "instance", 12),
        ({"DiffusionBValue": 1000.0}, "b_value", 1000.0),
        ({"DiffusionGradientOrientation": [0.0, 1.0, 0.0]}, "gradient", (0.0, 1.0, 0.0)),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "component", 2),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]}, "component", 1),
        ({"ComplexImageComponent": "IMAGINARY"}, "component", 4),
        ({"EchoTime": None}, "echo_ms", None),
        ({"AcquisitionTime": "no time"}, "acquired_s", None),
        ({"TriggerTime": ("LO", "no number")}, "trigger_ms", None),
    ],
)
def test_tags_are_read_from_headers(tags, name, value):
    info = read_header(dicom_bytes(np.zeros((4, 5), np.int16), **tags), ReadRules())
    assert isinstance(info, HeaderInfo)
    assert info.slice
    assert getattr(info.slice.tags, name) == value


@pytest.mark.parametrize(
    ("tag", "kind", "stored", "value"),
    [(0x0019100C, "IS", 700, 700.0), (0x0019100C, "UN", b"700 ", 700.0), (0x00431039, "IS", [1000001000, 8, 0, 0], 1000.0)],
)
def test_b_values_of_vendors_are_read(tag, kind, stored, value):
    dataset = dicom_dataset(np.zeros((4, 5), np.int16))
    dataset.add_new(tag, kind, stored)
    assert read_slice_header(dataset, "").tags.b_value == value


def test_an_element_that_cannot_be_read_leaves_the_others():
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(np.zeros((4, 5), np.int16), EchoTime=("LO", "2.5"), InstanceNumber=7)))
    raw = dataset.get_item("EchoTime")
    dataset["EchoTime"] = raw._replace(VR="FD", value=b"123")
    found = read_volume_tags(dataset)
    assert (found.echo_ms, found.instance) == (None, 7)


VOXELS = blob((12, 24, 24), 1).astype(np.int16)
SERIES = {**AXIAL, "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "RescaleSlope": 1, "RescaleIntercept": 0}


def write(folder: Path, number: int, pixels: np.ndarray, **tags: object) -> None:
    (folder / f"{number:03d}.dcm").write_bytes(dicom_bytes(pixels, **{**SERIES, **tags}))


def test_a_plan_has_an_input_for_each_volume_and_one_patient_for_a_series_without_one(tmp_path):
    for time in (1, 2):
        for depth, pixels in enumerate(VOXELS):
            tags = {"ImagePositionPatient": [0, 0, 2 * depth], "TemporalPositionIdentifier": time}
            write(tmp_path, time * 100 + depth, pixels + time, **tags)
    made = plan(scan_results_of(tmp_path), "mixed-superpatches:tiny")
    items = [item for task in made.tasks for item in task.items]

    assert not made.refused
    assert [item.uri[-7:] for item in items] == [":time-1", ":time-2"]
    assert [len(item.files) for item in items] == [len(VOXELS), len(VOXELS)]
    assert len({item.patient for item in items}) == 1
    assert items[0].patient
    assert all(item.note == "one of 2 volumes of its series, told by TemporalPositionIdentifier" for item in items)


def test_a_plan_keeps_the_stack_and_refuses_its_scout_and_what_is_incomplete(tmp_path):
    for depth, pixels in enumerate(VOXELS):
        write(tmp_path, depth, pixels, ImagePositionPatient=[0, 0, 2 * depth], AcquisitionNumber=1)
    write(tmp_path, 50, VOXELS[3] + 1, ImagePositionPatient=[0, 0, 6], AcquisitionNumber=2)
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    write(tmp_path, 60, VOXELS[0], ImagePositionPatient=[0, 0, 0], **scout)
    results = scan_results_of(tmp_path)
    made = plan(results, "mixed-superpatches:tiny")

    assert [len(item.files) for task in made.tasks for item in task.items] == [len(VOXELS)]
    assert Counter((one.rule, one.num_files) for one in made.refused) == Counter([("scout", 1), ("incomplete_volume", 1)])

    located = locate_unplanned(made, results, NAMING.names, ReadRules())
    assert {one.rule: [file.path for file in located[one.uri].files] for one in made.refused} == {
        "scout": ["060.dcm"],
        "incomplete_volume": ["050.dcm"],
    }
