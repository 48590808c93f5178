"""MetaImage and NRRD, held to SimpleITK, which writes and reads both; NIfTI shares what follows its header."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.metaimage import parse_header as parse_metaimage
from crossdim.pipelines.readers.nrrd import parse_header as parse_nrrd
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import HEAD_BYTES, RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality

TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64)
NAMES = {"metaimage": "scan.mha", "nrrd": "scan.nrrd"}
PARSERS = {"metaimage": parse_metaimage, "nrrd": parse_nrrd}
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def picture(dtype: type = np.int16, shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    """Values near both ends of a type, none of them symmetric."""
    values = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    return (values * 0.5 if np.dtype(dtype).kind == "f" else values).astype(dtype)


def write(path: Path, volume: SimpleITK.Image | np.ndarray, compress: bool = False) -> bytes:
    image = volume if isinstance(volume, SimpleITK.Image) else SimpleITK.GetImageFromArray(volume)
    SimpleITK.WriteImage(image, str(path), compress)
    return path.read_bytes()


def read(format_name: str, data: bytes, **rules: object) -> Sample:
    return READERS[format_name].decode(RawItem(uri="x", files=(data,), modality=Modality.OT, rules=ReadRules(**rules)))


def header(format_name: str, data: bytes) -> HeaderInfo:
    found = probe(NAMES[format_name], len(data), lambda size: data[:size], ReadRules())
    assert isinstance(found, HeaderInfo)
    return found


def refusal(format_name: str, data: bytes, **rules: object) -> SampleError:
    with pytest.raises(SampleError) as caught:
        read(format_name, data, **rules)
    return caught.value


def turned(image: SimpleITK.Image) -> SimpleITK.Image:
    """An image that lies askew in space, with three spacings and an origin."""
    angle = 0.3
    rotation = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, -1.0]])
    image.SetDirection(rotation[:, [2, 0, 1]].ravel().tolist())
    image.SetSpacing((0.7, 1.1, 2.5))
    image.SetOrigin((10.0, -20.0, 30.5))
    return image


def affine_of(image: SimpleITK.Image) -> np.ndarray:
    """(x, y, z, 1) to (right, anterior, superior) by what SimpleITK says of an image."""
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = LPS_TO_RAS @ image.GetOrigin()
    return affine


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("format_name", NAMES)
def test_values_and_place_are_those_of_simpleitk(tmp_path, format_name, dtype, compress):
    data = write(tmp_path / NAMES[format_name], turned(SimpleITK.GetImageFromArray(picture(dtype))), compress)
    expected = SimpleITK.ReadImage(str(tmp_path / NAMES[format_name]))
    sample, found = read(format_name, data), header(format_name, data)
    np.testing.assert_array_equal(sample.array[0], SimpleITK.GetArrayFromImage(expected).astype(np.float32))
    np.testing.assert_allclose(np.array(found.affine), affine_of(expected), atol=1e-9)
    np.testing.assert_allclose(np.array(sample.affine)[:, [2, 1, 0, 3]], np.array(found.affine), atol=0)
    assert sample.spacing_mm == found.spacing_mm == pytest.approx((2.5, 1.1, 0.7))
    assert found.shape == (4, 5, 6)
    assert found.format == format_name


@pytest.mark.parametrize("dtype", [">i2", ">f4", "<u2"])
@pytest.mark.parametrize("format_name", NAMES)
def test_both_byte_orders(format_name, dtype):
    values = picture(np.dtype(dtype).newbyteorder("=").type)
    is_big = dtype.startswith(">")
    names = {"i2": ("MET_SHORT", "int16"), "f4": ("MET_FLOAT", "float"), "u2": ("MET_USHORT", "ushort")}[dtype[1:]]
    text = {
        "metaimage": f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {is_big}\n"
        f"DimSize = 6 5 4\nElementType = {names[0]}\nElementDataFile = LOCAL\n",
        "nrrd": f"NRRD0004\ntype: {names[1]}\ndimension: 3\nsizes: 6 5 4\nencoding: raw\n"
        f"endian: {'big' if is_big else 'little'}\n\n",
    }[format_name]
    sample = read(format_name, text.encode() + values.astype(dtype).tobytes())
    np.testing.assert_array_equal(sample.array[0], values.astype(np.float32))
    assert "taken as LPS" in str(sample.extra["note"])


@pytest.mark.parametrize("format_name", NAMES)
def test_a_time_series_gives_its_first_frame_or_is_refused(tmp_path, format_name):
    frames = [SimpleITK.GetImageFromArray(picture() + 1000 * n) for n in range(3)]
    data = write(tmp_path / NAMES[format_name], SimpleITK.JoinSeries(frames))
    sample = read(format_name, data)
    np.testing.assert_array_equal(sample.array[0], picture().astype(np.float32))
    assert "first of 3 frames" in str(sample.extra["note"])
    assert refusal(format_name, data, frames="refuse").rule == "frames"


@pytest.mark.parametrize("format_name", NAMES)
def test_vectors_in_each_voxel_are_refused(tmp_path, format_name):
    colour = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    assert refusal(format_name, write(tmp_path / NAMES[format_name], colour)).rule == "vector"


@pytest.mark.parametrize(("format_name", "name"), [("metaimage", "scan.mhd"), ("nrrd", "scan.nhdr")])
def test_voxels_in_another_file_are_refused_by_name(tmp_path, format_name, name):
    error = refusal(format_name, write(tmp_path / name, picture()))
    assert error.rule == "header_pair"
    assert "write both as one" in str(error)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("format_name", NAMES)
def test_a_file_that_is_cut_anywhere_is_refused(tmp_path, format_name, compress):
    data = write(tmp_path / NAMES[format_name], picture(), compress)
    for length in [*range(20, len(data) - 1, 7), len(data) - 1]:
        assert refusal(format_name, data[:length]).rule in ("truncated", "header_value"), length


@pytest.mark.parametrize("format_name", NAMES)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_flipped_bit_of_compressed_voxels_goes_unseen(tmp_path_factory, format_name, place, bit):
    data = bytearray(write(tmp_path_factory.mktemp("one") / NAMES[format_name], picture(), True))
    start = PARSERS[format_name](bytes(data), ReadRules()).payload_offset
    place = start + place % (len(data) - start)
    data[place] ^= 1 << bit
    try:
        sample = read(format_name, bytes(data))
    except SampleError:
        return
    np.testing.assert_array_equal(sample.array[0], picture().astype(np.float32))  # bits of gzip's header mean nothing


@pytest.mark.parametrize("format_name", NAMES)
def test_a_header_longer_than_what_is_read_first_is_read_whole(tmp_path, format_name):
    data = write(tmp_path / NAMES[format_name], picture())
    place = data.index(b"\n") + 1
    comment = b"x" * HEAD_BYTES
    data = data[:place] + {"metaimage": b"Comment = %s\n", "nrrd": b"Comment:=%s\n"}[format_name] % comment + data[place:]
    assert header(format_name, data).shape == (4, 5, 6)
    np.testing.assert_array_equal(read(format_name, data).array[0], picture().astype(np.float32))


@pytest.mark.parametrize("format_name", NAMES)
def test_a_size_that_the_header_claims_is_refused_before_memory_is_asked_for(format_name):
    text = {
        "metaimage": "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 60000 60000 60000\nElementType = MET_SHORT\n"
        "ElementDataFile = LOCAL\n",
        "nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: 60000 60000 60000\nendian: little\nencoding: raw\n\n",
    }[format_name]
    assert refusal(format_name, text.encode()).rule == "too_large"


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("format_name", NAMES)
def test_more_voxels_than_the_header_tells_of_are_refused(tmp_path, format_name, compress):
    text = write(tmp_path / NAMES[format_name], np.zeros((64, 64, 64), np.int16), compress)
    smaller = text.replace(b"64 64 64", b"64 64 24")
    assert smaller != text
    assert refusal(format_name, smaller).rule == "too_long"


NRRD = "NRRD0005\ntype: int16\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n"


def nrrd(*lines: str, start: str = NRRD) -> bytes:
    return (start + "".join(f"{line}\n" for line in lines) + "\n").encode() + picture().tobytes()


@pytest.mark.parametrize(
    ("space", "signs"),
    [("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1)), ("LPS", (-1, -1, 1)), ("scanner-xyz", (-1, -1, 1))],
)
def test_the_space_of_nrrd_decides_its_directions(tmp_path, space, signs):
    data = nrrd(f"space: {space}", "space directions: (1,0,0) (0,2,0) (0,0,3)", "space origin: (7,8,9)")
    found = np.array(header("nrrd", data).affine)
    np.testing.assert_allclose(found[:3, :3], np.diag(np.array(signs) * (1, 2, 3)))
    np.testing.assert_allclose(found[:3, 3], np.array(signs) * (7, 8, 9))
    (tmp_path / "one.nrrd").write_bytes(data)
    np.testing.assert_allclose(affine_of(SimpleITK.ReadImage(str(tmp_path / "one.nrrd")))[:3], found[:3])


def test_units_of_nrrd_are_millimetres_or_are_converted_or_noted():
    directions = ("space: RAS", "space directions: (1,0,0) (0,2,0) (0,0,3)")
    assert header("nrrd", nrrd(*directions, 'space units: "um" "um" "um"')).spacing_mm == pytest.approx((0.003, 0.002, 0.001))
    assert header("nrrd", nrrd(*directions, 'space units: "mm" "mm" "mm"')).spacing_mm == pytest.approx((3, 2, 1))
    assert "unit of lengths" in str(read("nrrd", nrrd(*directions, 'space units: "ell" "ell" "ell"')).extra["note"])
    assert refusal("nrrd", nrrd(*directions, 'space units: "mm" "mm" "um"')).rule == "header_value"


def test_spacings_without_a_space_are_read_and_noted():
    sample = read("nrrd", nrrd("spacings: 1 2 3"))
    assert sample.spacing_mm == (3.0, 2.0, 1.0)
    assert "taken as LPS" in str(sample.extra["note"])


def test_a_segmentation_of_slicer_says_that_it_is_one():
    assert header("nrrd", nrrd("Segment0_ID:=Segment_1")).labels
    assert not header("nrrd", nrrd("Comment:=Segment0_ID")).labels


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("data file: other.raw", "header_pair"),
        ("byte skip: 8", "offset"),
        ("space directions: (1,0,0) (0,1,0)", "header_value"),
        ("space directions: (1,0,0) (0,1,0) (0,0,0)", "singular_affine"),
        ("space directions: (1,0,0) (0,1,0) (0,1,1)", "sheared_affine"),
        ("space directions: (1,0,0) (0,1,0) (0,0,a)", "header_value"),
        ("spacings: 1 2", "header_value"),
        ("spacings: 1 nan 2", "singular_affine"),
        ("kinds: RGB-color domain domain", "vector"),
        ("neither a field nor a pair", "header_value"),
    ],
)
def test_headers_of_nrrd_that_are_not_sound_are_refused_by_rule(line, rule):
    assert refusal("nrrd", nrrd(line)).rule == rule


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("type: int16", "type: block", "datatype"),
        ("encoding: raw", "encoding: bzip2", "encoding"),
        ("endian: little\n", "", "header_value"),
        ("sizes: 6 5 4", "sizes: 6 5", "header_value"),
        ("sizes: 6 5 4", "sizes: 6 0 4", "dimensions"),
        ("sizes: 6 5 4", "sizes: 6 5 four", "header_value"),
        ("type: int16\n", "", "header_value"),
    ],
)
def test_fields_of_nrrd_that_are_wrong_or_absent_are_refused_by_rule(old, new, rule):
    assert refusal("nrrd", nrrd(start=NRRD.replace(old, new))).rule == rule


METAIMAGE = """ObjectType = Image
NDims = 3
BinaryData = True
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 1 1 1
DimSize = 6 5 4
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("ObjectType = Image", "ObjectType = Tube", "dimensions"),
        ("BinaryData = True", "BinaryData = False", "datatype"),
        ("MET_SHORT", "MET_STRING", "datatype"),
        ("ElementSpacing = 1 1 1", "ElementSpacing = 1 -1 1", "singular_affine"),
        ("ElementSpacing = 1 1 1", "ElementSpacing = 1 1", "header_value"),
        ("TransformMatrix = 1 0 0 0", "TransformMatrix = 1 1 0 0", "sheared_affine"),
        ("TransformMatrix = 1 0 0 0", "TransformMatrix = 0 0 0 0", "singular_affine"),
        ("DimSize = 6 5 4", "DimSize = 6 5", "header_value"),
        ("DimSize = 6 5 4\n", "", "header_value"),
        ("NDims = 3", "NDims = 3 3", "header_value"),
        ("ElementDataFile = LOCAL", "ElementDataFile = other.raw", "header_pair"),
        ("Offset = 0 0 0", "Offset", "header_value"),
        ("CompressedData = False", "CompressedData = True", "gzip"),
    ],
)
def test_headers_of_metaimage_that_are_not_sound_are_refused_by_rule(old, new, rule):
    assert METAIMAGE.replace(old, new) != METAIMAGE
    assert refusal("metaimage", METAIMAGE.replace(old, new).encode() + picture().tobytes()).rule == rule


@pytest.mark.parametrize(
    "field", [None, "ObjectType", "BinaryData", "CompressedData", "TransformMatrix", "Offset", "ElementSpacing"]
)
def test_fields_of_metaimage_that_are_not_there_are_taken_as_simpleitk_takes_them(tmp_path, field):
    text = METAIMAGE.replace("ElementSpacing = 1 1 1", "ElementSpacing = 1 2 3").replace("Offset = 0 0 0", "Offset = 4 5 6")
    lines = [line for line in text.splitlines(keepends=True) if not (field and line.startswith(field))]
    data = "".join(lines).encode() + picture().tobytes()
    (tmp_path / "one.mha").write_bytes(data)
    expected = SimpleITK.ReadImage(str(tmp_path / "one.mha"))
    np.testing.assert_array_equal(read("metaimage", data).array[0], SimpleITK.GetArrayFromImage(expected))
    np.testing.assert_allclose(np.array(header("metaimage", data).affine), affine_of(expected))


def test_metaimage_says_its_modality():
    text = METAIMAGE.replace("DimSize", "Modality = MET_MOD_CT\nDimSize")
    assert header("metaimage", text.encode() + picture().tobytes()).modality is Modality.CT
    assert header("metaimage", METAIMAGE.encode() + picture().tobytes()).modality is None
