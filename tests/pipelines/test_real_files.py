"""Decoders over real files, and over files broken on purpose: what must be read is read right, what must not is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from crossdim.pipelines.readers.dicom_header import read_header as read_dicom_header
from crossdim.pipelines.readers.dicom_header import read_slice_header
from crossdim.pipelines.readers.dicom_mosaic import _parse_csa, read_mosaic
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.probe import probe
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.readers.series_split import split_series
from crossdim.pipelines.readers.signatures import Unread
from crossdim.pipelines.stages.orient import orient
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample

RULES = ReadRules()
#: Plain classic series whose reference was checked against an independent reader.
REFERENCED = (
    "ct_phantom_philips_5mm",
    "d2n_ge_anat",
    "d2n_hitachi",
    "d2n_j2k",
    "d2n_jpegll",
    "d2n_jpegls",
    "d2n_noniso",
    "d2n_philips_anat",
    "d2n_rle",
    "d2n_siemens_anat",
    "hard_two_slices",
)
#: Files with an all-zero sform that their sound qform places; an error before the qform was asked.
PLACED_BY_QFORM = ("singular_affine.nii.gz",)
#: Enhanced multi-frame DICOM and mosaics, one volume in each file.
MULTI_FRAME = ("d2n_hyperfine", "d2n_philips_enh", "d2n_siemens_mf", "mr_enhanced_xa10", "mr_mosaic_b17", "d2n_siemens_mosaic")
#: Tiles run against the slices of the protocol. The reference has these voxels, but grows from the first tile in the protocol's
#: direction, which puts 49 of its 50 slices where none was acquired: our first slice lies where the protocol has it.
PLACED_BY_PROTOCOL = {"d2n_siemens_mosaic": 49 * 3.08}
#: Series of several volumes.
SEVERAL_VOLUMES = ("d2n_ge_dti", "mr_epi_ge_4d", "mr_epi_ge_zugfahrt")
REFUSED_SERIES = {
    "ct_liver_3slice_seg": "segmentation",
    "d2n_ge_dti": "repeated_position",
    "d2n_hyperfine": "multi_frame",
    "d2n_philips_enh": "multi_frame",
    "d2n_rgb": "colour",
    "d2n_siemens_mf": "multi_frame",
    "d2n_siemens_mosaic": "mosaic",
    "hard_irregular_spacing": "irregular_spacing",
    "hard_mixed_orientation": "mixed_orientation",
    "hard_not_a_volume": "repeated_position",
    "mr_enhanced_xa10": "multi_frame",
    "mr_epi_ge_4d": "repeated_position",
    "mr_epi_ge_zugfahrt": "repeated_position",
    "mr_mosaic_b17": "mosaic",
}
#: Cases made from one CT series: None is read, otherwise the rule that refuses the series.
BROKEN_SERIES = {
    "duplicate_position": None,  # the same pixels under two UIDs
    "exact_duplicate": None,
    "instance_number_constant": None,
    "irregular_spacing": "irregular_spacing",
    "missing_position": "missing_position",
    "missing_slice": "irregular_spacing",
    "mixed_orientation": "mixed_orientation",
    "mixed_photometric": "mixed_photometric",
    "mixed_pixel_spacing": "mixed_spacing",
    "mixed_rescale": None,
    "mixed_rows": "mixed_size",
    "no_pixel_data": "no_pixels",
    "no_preamble": None,
    "short_pixel_data": "truncated",
    "shuffled_names": None,
    "truncated_file": "truncated",
}


def found_in(path: Path) -> HeaderInfo | None:
    data = path.read_bytes()
    return probe(path.name, len(data), lambda n: data[:n], RULES)


def decoded(path: Path) -> Sample:
    """One file through probe and decoder, as the pipeline takes it."""
    info = found_in(path)
    assert info is not None
    return READERS[str(info.format)].decode(RawItem(uri=path.name, files=(path.read_bytes(),), rules=RULES))


def decode_series(files: tuple[bytes, ...]) -> Sample:
    return READERS["dicom-series"].decode(RawItem(uri="series", files=files))


def decoded_series(folder: Path) -> Sample:
    return decode_series(tuple(path.read_bytes() for path in sorted(folder.iterdir())))


def reference(path: Path) -> np.ndarray:
    """A NIfTI file by nibabel alone: canonical axes, as (D, H, W)."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    data = np.asarray(image.dataobj, np.float64)
    return (data[..., 0] if data.ndim == 4 else data).transpose(2, 1, 0)


@pytest.mark.parametrize("folder", ["ct", "mr"])
def test_volumes_agree_with_nibabel_after_orientation(real_data, folder):
    """An independent reader: canonical (x, y, z) transposed is our (D, H, W)."""
    for path in sorted((real_data / folder).glob("*.nii*")):
        sample = orient(decoded(path))
        expected = reference(path)

        assert sample.array.shape == (1, *expected.shape), path.name
        assert np.array_equal(sample.array[0], expected.astype(np.float32)), path.name


@pytest.mark.parametrize("name", REFERENCED)
def test_series_agree_with_their_reference(real_data, name):
    """References come from other converters (dcm2niix, dicom2nifti); voxels and places must be theirs."""
    path = real_data / "dicom_series" / f"{name}_ref.nii.gz"
    sample = orient(decoded_series(real_data / "dicom_series" / name))
    image = nibabel.as_closest_canonical(nibabel.load(path))

    assert np.allclose(sample.array[0], reference(path), atol=1e-3)
    assert np.allclose(np.array(sample.affine)[:3, [2, 1, 0, 3]], image.affine[:3], atol=2e-3)


@pytest.mark.parametrize(("name", "rule"), REFUSED_SERIES.items())
def test_series_that_make_no_volume_are_refused_by_name(real_data, name, rule):
    """A wrong volume is worse than none."""
    with pytest.raises(SampleError) as caught:
        decoded_series(real_data / "dicom_series" / name)

    assert caught.value.rule == rule


@pytest.mark.parametrize("name", SEVERAL_VOLUMES)
def test_volumes_of_a_series_agree_with_the_frames_of_their_reference(real_data, name):
    """References come from other converters; each frame is one of our volumes, in the same order."""
    folder = real_data / "dicom_series"
    (path,) = folder.glob(f"{name}_ref.nii*")
    image = nibabel.as_closest_canonical(nibabel.load(path))
    frames = np.asarray(image.dataobj, np.float64).transpose(3, 2, 1, 0)
    data = [one.read_bytes() for one in sorted((folder / name).iterdir())]
    found = [read_dicom_header(one, RULES) for one in data]
    parts = split_series([info.slice for info in found if isinstance(info, HeaderInfo) and info.slice])

    assert len(parts) == len(frames)
    for part, expected in zip(parts, frames, strict=True):
        sample = orient(decode_series(tuple(data[number] for number in part.numbers)))
        assert np.allclose(sample.array[0], expected, atol=1e-3)
        assert np.allclose(np.array(sample.affine)[:3, [2, 1, 0, 3]], image.affine[:3], atol=2e-3)


@pytest.mark.parametrize("name", MULTI_FRAME)
def test_multi_frame_files_agree_with_their_reference(real_data, name):
    """One volume a file; the file of each time is one frame of the reference, and no file is the same."""
    folder = real_data / "dicom_series"
    (path,) = folder.glob(f"{name}_ref.nii*")
    image = nibabel.as_closest_canonical(nibabel.load(path))
    frames = np.asarray(image.dataobj, np.float64)
    frames = frames.reshape(*frames.shape[:3], -1).transpose(3, 2, 1, 0)
    files = sorted((folder / name).iterdir(), key=lambda path: (len(path.name), path.name))
    assert len(files) == len(frames)
    for file, expected in zip(files, frames, strict=True):
        info = read_dicom_header(file.read_bytes(), RULES)
        assert isinstance(info, HeaderInfo)
        sample = READERS["dicom-frames"].decode(RawItem(uri="x", files=(file.read_bytes(),)))
        assert sample.array.shape[1:] == info.shape
        assert np.allclose(np.array(sample.affine)[:, [2, 1, 0, 3]], np.array(info.affine))
        sample = orient(sample)
        assert np.allclose(sample.array[0], expected, atol=1e-3)
        affine = np.array(sample.affine)[:3, [2, 1, 0, 3]]
        assert np.allclose(affine[:, :3], image.affine[:3, :3], atol=2e-3)
        assert np.linalg.norm(affine[:, 3] - image.affine[:3, 3]) == pytest.approx(PLACED_BY_PROTOCOL.get(name, 0), abs=2e-3)


def test_the_private_header_of_a_mosaic_says_what_its_protocol_says(real_data):
    """Two statements of one thing, by two parsers: the number of slices, and their direction."""
    path = next((real_data / "dicom_series" / "mr_mosaic_b17").iterdir())
    dataset = pydicom.dcmread(path)
    image = _parse_csa(dataset[0x00291010].value)
    del dataset[0x00291010], dataset[0x0019100A]
    mosaic = read_mosaic(dataset, read_slice_header(dataset, ""))
    first, last = (np.array(mosaic.slices[number].position_mm) for number in (0, -1))
    assert list(image["NumberOfImagesInMosaic"]) == [mosaic.num_slices]
    assert np.allclose(image["SliceNormalVector"], (last - first) / np.linalg.norm(last - first), atol=1e-6)


def test_one_sop_instance_uid_in_all_slices_is_no_obstacle(real_data):
    """Anonymisers write such series; slices are told apart by position and content."""
    assert decoded_series(real_data / "dicom_series" / "ct_body_j2k").array.shape == (1, 20, 512, 512)


@pytest.mark.parametrize(("name", "rule"), BROKEN_SERIES.items())
def test_broken_series_meet_their_rule(real_data, name, rule):
    """Every case folder was made from one sound series by one change."""
    folder = real_data / "broken" / "dicom" / name
    if rule is None:
        assert decoded_series(folder).array.shape == (1, 9, 128, 88)
        return
    with pytest.raises(SampleError) as caught:
        decoded_series(folder)

    assert caught.value.rule == rule


def test_rescale_is_applied_slice_by_slice(real_data):
    """One slice of the case has its own slope; the oracle multiplies by hand."""
    folder = real_data / "broken" / "dicom" / "mixed_rescale"
    slices = sorted(
        (pydicom.dcmread(path) for path in folder.iterdir()), key=lambda one: tuple(map(float, one.ImagePositionPatient))
    )
    expected = [one.pixel_array * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0)) for one in slices]
    found = decoded_series(folder).array[0]

    assert len({(float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))) for one in slices}) > 1
    assert np.allclose(found, expected) or np.allclose(found, expected[::-1])


def test_foreign_files_beside_a_series_are_left_alone(real_data):
    """Folders hold thumbnails, indexes and reports; they are not for us, and no error."""
    results = {}
    for path in sorted((real_data / "broken" / "dicom" / "foreign_files").iterdir()):
        try:
            results[path.name] = found_in(path)
        except SampleError as error:
            results[path.name] = error.rule

    assert sum(isinstance(v, HeaderInfo) for v in results.values()) == 9
    assert {name for name, v in results.items() if isinstance(v, Unread) and not v.is_image} == set(results) - {
        n for n in results if n.endswith(".dcm")
    }
    assert results["notes.dcm"] == "wrong_format"


def expectations(real_data: Path, kind: str) -> list[tuple[Path, str]]:
    with (real_data / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["path"].startswith(f"broken/{kind}/")]
    return [(real_data / row["path"], row["expect"]) for row in rows]


@pytest.mark.parametrize("kind", ["nifti", "image2d"])
def test_broken_files_do_what_is_expected_of_them(real_data, kind):
    """`ok` must be read, `error` must be refused with a rule; either may happen to what is written with `or` or `warn`."""
    wrong = []
    for path, expect in expectations(real_data, kind):
        if path.name.startswith("pair.") or path.name in PLACED_BY_QFORM:
            continue  # pairs are not read
        try:
            decoded(path)
            outcome = "ok"
        except SampleError as error:
            outcome = f"error [{error.rule}]"
        firm = expect.split(":")[0].split(" ")[0]
        if (firm in ("ok", "ok-by-magic") and " or " not in expect and outcome != "ok") or (firm == "error" and outcome == "ok"):
            wrong.append(f"{path.name}: expected {expect}, was {outcome}")

    assert not wrong


@pytest.mark.parametrize(
    "name", ["flipped_lpi", "permuted_axes", "big_endian", "nifti2", "multi_member", "gz_named_plain", "plain_nifti_named_gz"]
)
def test_variants_show_the_same_picture(real_data, name):
    """Byte order, header version, axis order and file name are packaging."""
    folder = real_data / "broken" / "nifti"
    path = next(p for p in folder.iterdir() if p.name.split(".")[0] == name)
    original = orient(decoded(real_data / "seg" / "spine_mt1" / "image.nii.gz"))
    variant = orient(decoded(path))

    assert np.array_equal(variant.array, original.array)
    assert np.allclose(variant.affine, original.affine, atol=1e-3)


@pytest.mark.parametrize("name", PLACED_BY_QFORM)
def test_a_zero_sform_leaves_the_place_to_a_sound_qform(real_data, name):
    """The original has both; without its sform it must lie where it lay."""
    original = decoded(real_data / "seg" / "spine_mt1" / "image.nii.gz")
    sample = decoded(real_data / "broken" / "nifti" / name)

    assert np.allclose(sample.affine, original.affine, atol=1e-3)
    assert "qform taken" in str(sample.extra["note"])


def test_slope_and_intercept_are_applied_as_nibabel_does(real_data):
    path = real_data / "broken" / "nifti" / "scl_slope_inter.nii.gz"

    assert np.allclose(orient(decoded(path)).array[0], reference(path), rtol=1e-6)


def test_a_few_nan_voxels_are_replaced_and_noted(real_data):
    for name in ("nan_voxels", "inf_voxels"):
        sample = decoded(real_data / "broken" / "nifti" / f"{name}.nii.gz")

        assert np.isfinite(sample.array).all()
        assert "NaN or infinite" in str(sample.extra["note"])


def test_all_pictures_are_read(real_data):
    for folder, channels in (("xray2d", 1), ("micro2d", 3)):
        for path in sorted((real_data / folder).iterdir()):
            if path.suffix != ".csv":
                assert decoded(path).array.shape[0] == channels


def test_single_dicom_files_of_every_transfer_syntax_are_images(real_data):
    for path in sorted((real_data / "dicom_single").iterdir()):
        info = found_in(path)
        sample = decoded(path)

        assert info is not None
        assert info.format == "dicom"
        assert sample.array.shape == (1, *info.shape)
        assert sample.array.dtype in (np.uint8, np.uint16)
