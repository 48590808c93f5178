"""NIfTI files: units, sform against qform and pixdim, background and infinities, and what stands behind the voxels."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.pipelines import decoder_process
from crossdim.pipelines.readers.raw import RawItem
from crossdim.pipelines.readers.registry import READERS
from crossdim.pipelines.stages.intensity import Intensity, store
from crossdim.pipelines.stages.orient import orient
from crossdim.pipelines.stages.resample import Resample, resample
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality
from tests.pipelines.corpora import blob, nifti_bytes

VOLUME = np.random.default_rng(4).integers(-500, 500, (5, 6, 7)).astype(np.int16)
#: Byte offsets of a NIfTI-1 header.
PIXDIM, UNITS, CODES, SROW = 76, 123, 252, 280
WINDOW = Intensity(window_hu=(-1000, 1000))


def read(data: bytes, modality: Modality = Modality.OT) -> Sample:
    return READERS["nifti"].decode(RawItem(uri="x", files=(data,), modality=modality))


def refusal(data: bytes) -> SampleError:
    with pytest.raises(SampleError) as caught:
        read(data)
    return caught.value


def header_of(*, sform: np.ndarray | None, qform: np.ndarray | None, zooms: tuple[float, ...] | None = None) -> bytes:
    """A file whose sform and qform are these, or not stated; ``zooms`` overwrites pixdim."""
    image = nibabel.Nifti1Image(VOLUME, None)
    image.header.set_xyzt_units("mm")
    image.header.set_zooms((1.0, 1.0, 1.0))
    if qform is not None:
        image.header.set_qform(qform, 1)
    if sform is not None:
        image.header.set_sform(sform, 1)
    data = bytearray(image.to_bytes())
    struct.pack_into("<hh", data, CODES, int(qform is not None), int(sform is not None))
    if sform is not None:  # nibabel fills an unset sform or qform from the other on saving
        data[SROW : SROW + 48] = np.asarray(sform, "<f4")[:3].tobytes()
    if zooms is not None:
        struct.pack_into("<3f", data, PIXDIM + 4, *zooms)
    return bytes(data)


@pytest.mark.parametrize(("code", "mm"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0), (10, 1.0), (8, 1.0)])
@pytest.mark.parametrize("where", ["sform", "qform", "pixdim"])
def test_lengths_have_the_unit_that_the_header_states(code, mm, where):
    """Metres, millimetres and micrometres, with and without a unit of time; unknown is millimetres, told."""
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = [5, 6, 7]
    kinds = {"sform": (affine, None), "qform": (None, affine), "pixdim": (None, None)}
    sform, qform = kinds[where]
    data = bytearray(header_of(sform=sform, qform=qform, zooms=(2, 3, 4)))
    data[UNITS] = code
    sample = read(bytes(data))

    assert sample.spacing_mm == pytest.approx((4 * mm, 3 * mm, 2 * mm))
    if where != "pixdim":
        assert np.array(sample.affine)[:3, 3] == pytest.approx(np.array([5, 6, 7]) * mm)
    assert ("unit of lengths not stated" in str(sample.extra.get("note"))) == (code & 7 == 0)


def test_sform_is_taken_where_all_agree_as_nibabel_does():
    affine = np.diag([-1.3, 1.3, 10, 1])
    data = header_of(sform=affine, qform=affine)
    sample = read(data)

    assert np.allclose(np.array(sample.affine)[:, [2, 1, 0, 3]], nibabel.Nifti1Image.from_bytes(data).affine)
    assert "note" not in sample.extra


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("factor", "agrees"), [(1.005, True), (0.995, True), (1.02, False), (0.98, False), (0.1, False)])
def test_sform_and_pixdim_that_differ_by_more_than_a_percent_are_decided_by_qform_or_refused(axis, factor, agrees):
    """As in ACDC, whose sform says 1 mm."""
    true = np.diag([1.3, 1.3, 10, 1])
    wrong = true.copy()
    wrong[axis, axis] *= factor
    sample = read(header_of(sform=wrong, qform=true))
    note = str(sample.extra.get("note"))

    assert sample.spacing_mm == pytest.approx(tuple(np.diag(wrong if agrees else true)[2::-1]), rel=1e-5)
    assert ("qform and pixdim taken" in note) == (not agrees)
    alone = header_of(sform=wrong, qform=None, zooms=(1.3, 1.3, 10))
    if agrees:
        assert read(alone).spacing_mm == sample.spacing_mm
    else:
        assert refusal(alone).rule == "sform_pixdim"


@pytest.mark.parametrize("damage", ["zero", "nan", "one_zero_axis", "flat"])
def test_an_unsound_sform_leaves_the_place_to_qform_and_is_refused_without(damage):
    true = np.diag([2.0, 3.0, 4.0, 1.0])
    sform = {
        "zero": np.zeros((4, 4)),
        "nan": np.full((4, 4), np.nan),
        "one_zero_axis": np.diag([2.0, 0, 4, 1]),
        "flat": np.array([[2.0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]]),
    }[damage]
    sample = read(header_of(sform=sform, qform=true))

    assert sample.spacing_mm == (4, 3, 2)
    assert "qform taken" in str(sample.extra["note"])
    assert refusal(header_of(sform=sform, qform=None, zooms=(2, 3, 4))).rule in ("singular_affine", "sheared_affine")


def test_sform_and_qform_that_point_elsewhere_are_told():
    turned = nibabel.affines.from_matvec(np.array([[0.0, -2, 0], [2, 0, 0], [0, 0, 2]]))
    sample = read(header_of(sform=turned, qform=np.diag([2.0, 2, 2, 1])))

    assert "differ by 90 degrees, sform taken" in str(sample.extra["note"])
    assert np.allclose(np.array(sample.affine)[:, [2, 1, 0, 3]], turned)


@pytest.mark.parametrize(("shift", "is_told"), [(500.0, True), (1.0, False)])
def test_origins_that_lie_apart_are_told(shift, is_told):
    """By more than a voxel; less is the rounding of a quaternion."""
    moved = nibabel.affines.from_matvec(np.diag([2.0, 2, 2]), [0, shift, 0])
    sample = read(header_of(sform=moved, qform=np.diag([2.0, 2, 2, 1])))

    assert ("origins of sform and qform lie 500 apart, sform taken" in str(sample.extra.get("note"))) == is_told
    assert np.allclose(np.array(sample.affine)[:3, 3], moved[:3, 3])


def test_pixdim_that_states_nothing_is_told_and_not_compared():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    for zooms in ((0, 3, 4), (-2, 3, 4), (np.nan, 3, 4)):
        sample = read(header_of(sform=affine, qform=None, zooms=zooms))
        assert sample.spacing_mm == (4, 3, 2)
        assert "pixdim is not positive" in str(sample.extra["note"])


def test_qform_alone_and_pixdim_alone_are_read_as_nibabel_loads_them():
    """With qfac 0 and with negative sizes, which nibabel mends when it loads a file."""
    rotated = nibabel.affines.from_matvec(np.array([[0, -3.0, 0], [2, 0, 0], [0, 0, 4]]), [1, 2, 3])
    for data in (header_of(sform=None, qform=rotated), header_of(sform=None, qform=None, zooms=(2, 3, 4))):
        expected = nibabel.Nifti1Image.from_bytes(data).affine
        assert np.allclose(np.array(read(data).affine)[:, [2, 1, 0, 3]], expected)
        for qfac, sign in ((0.0, 1), (1.0, -1)):
            mended = bytearray(data)
            struct.pack_into("<f", mended, PIXDIM, qfac)
            struct.pack_into("<f", mended, PIXDIM + 4, sign * struct.unpack_from("<f", data, PIXDIM + 4)[0])
            assert np.allclose(np.array(read(bytes(mended)).affine)[:, [2, 1, 0, 3]], expected)


def test_a_qform_that_is_none_is_refused():
    data = bytearray(header_of(sform=None, qform=np.eye(4)))
    struct.pack_into("<3f", data, 256, 2.0, 2.0, 2.0)  # no unit quaternion

    assert refusal(bytes(data)).rule == "affine"


@given(st.integers(1, 1 << 16), st.sampled_from([b"\0", b"x"]))
def test_bytes_behind_the_voxels_are_the_same_inside_and_outside_of_gzip(count, filler):
    plain = nifti_bytes(VOLUME, (1, 1, 1)) + filler * count
    samples = [read(plain), read(gzip.compress(plain)), read(gzip.compress(plain[:700]) + gzip.compress(plain[700:]))]

    assert all(np.array_equal(sample.array[0], VOLUME.T) for sample in samples)
    assert {sample.extra["note"] for sample in samples} == {f"{count} bytes behind the last voxel left out"}


def test_more_voxels_than_the_header_tells_of_are_refused_inside_and_outside_of_gzip():
    plain = nifti_bytes(VOLUME, (1, 1, 1)) + bytes((1 << 16) + 1)

    assert refusal(plain).rule == refusal(gzip.compress(plain)).rule == "too_long"


def brain(background: float) -> np.ndarray:
    """Values 100 to 139 in a ball, and ``background`` around it."""
    grid = np.indices((40, 40, 40)).astype(np.float32)
    inside = ((grid - 19.5) ** 2).sum(axis=0) < 256
    return np.where(inside, 100 + grid[0], background).astype(np.float32)


@pytest.mark.parametrize("modality", [Modality.MR, Modality.CT])
@pytest.mark.parametrize("spacing", [2.0, 1.3])
def test_nan_around_a_brain_is_background_and_no_part_of_its_window(modality, spacing):
    """Values inside are those without any NaN; outside is stored as zero, at the spacing of the file and at another."""
    values, nan = brain(np.nan), np.isnan(brain(np.nan))
    sample = read(nifti_bytes(values, (2, 2, 2)), modality)
    oriented = orient(sample)
    stored = store(resample(oriented, Resample(spacing_mm=spacing)), WINDOW)
    low, high = np.percentile(values[~nan], (0.5, 99.5))

    assert np.array_equal(sample.array[0][~nan.T], values.T[~nan.T])
    assert np.isfinite(sample.array).all()
    assert np.array_equal(sample.outside, nan.T)
    assert (sample.scaling.low, sample.scaling.high) == (values[~nan].min(), values[~nan].max())
    assert "NaN set to background" in str(sample.extra["note"])
    if spacing == 2.0:
        assert stored.array[0][oriented.outside].max() == 0
        if modality is Modality.MR:
            assert (stored.scaling.low, stored.scaling.high) == (pytest.approx(low), pytest.approx(high))
    assert 0.1 < (stored.array > 0).mean() < 0.35
    assert stored.array[0, 0].max() == 0


def test_infinities_go_to_the_side_that_they_are_on():
    values = brain(0.0)
    values[0, 0, 0], values[1, 0, 0], values[2, 0, 0] = np.inf, -np.inf, np.nan
    sample = read(nifti_bytes(values, (2, 2, 2)))

    assert sample.array[0].T[:3, 0, 0].tolist() == [values[np.isfinite(values)].max(), 0, 0]
    assert (sample.outside.sum(), bool(sample.outside.T[2, 0, 0])) == (1, True)
    assert str(sample.extra["note"]).endswith("1 NaN set to background, 1 +Inf to the maximum, 1 -Inf to the minimum")


@pytest.mark.parametrize("slope", [1.0, 2.0])
def test_values_above_32_bits_are_infinite(slope):
    """As stored, and once rescaled; NumPy only warns of them."""
    values = brain(0.0).astype(np.float64)
    values[0, 0, 0] = 1e300
    image = nibabel.Nifti1Image(values, np.diag([2.0, 2, 2, 1]))
    image.header.set_slope_inter(slope, 0)
    sample = read(image.to_bytes())

    assert "NaN or infinite voxels: 1 +Inf to the maximum" in str(sample.extra["note"])


def test_many_infinities_or_no_finite_voxel_are_refused():
    values = brain(0.0)
    values[:6] = np.inf
    assert refusal(nifti_bytes(values, (2, 2, 2))).rule == "not_finite"
    values[:] = np.nan
    assert refusal(nifti_bytes(values, (2, 2, 2))).rule == "not_finite"


@pytest.mark.parametrize(("slope", "intercept"), [(2, -10), (-1, 0), (0.1, 0.5), (0, 5), (0, np.nan), (np.nan, np.nan)])
def test_slope_and_intercept_are_those_of_nibabel_and_a_slope_of_zero_or_nan_means_none(slope, intercept):
    data = bytearray(nifti_bytes(VOLUME, (1, 1, 1)))
    struct.pack_into("<ff", data, 112, slope, intercept)
    sound = slope in (2, -1, 0.1)
    expected = nibabel.Nifti1Image.from_bytes(bytes(data)).get_fdata() if sound else VOLUME

    assert np.array_equal(read(bytes(data)).array[0], expected.T.astype(np.float32))


@pytest.mark.parametrize("slope", [1, 2, -0.5])
@pytest.mark.parametrize("intercept", [np.nan, np.inf, -np.inf])
def test_a_slope_with_an_intercept_that_is_no_number_is_refused_as_nibabel_does(slope, intercept):
    data = bytearray(nifti_bytes(VOLUME, (1, 1, 1)))
    struct.pack_into("<ff", data, 112, slope, intercept)

    with pytest.raises(nibabel.spatialimages.HeaderDataError):
        nibabel.Nifti1Image.from_bytes(bytes(data))
    assert refusal(bytes(data)).rule == "rescale"


@pytest.mark.parametrize("code", [-1, -32768])
def test_codes_below_one_state_no_orientation_as_in_nibabel(code):
    true, other = np.diag([2.0, 3.0, 4.0, 1.0]), np.diag([-2.0, 3.0, 4.0, 1.0])
    data = bytearray(header_of(sform=other, qform=true))
    struct.pack_into("<h", data, CODES + 2, code)
    expected = nibabel.Nifti1Image.from_bytes(bytes(data)).affine
    assert np.allclose(expected, true)
    assert np.allclose(np.array(read(bytes(data)).affine)[:, [2, 1, 0, 3]], expected)

    struct.pack_into("<h", data, CODES, code)
    assert "no orientation in the header" in str(read(bytes(data)).extra["note"])


def test_ct_with_an_offset_says_so_and_ct_without_does_not():
    """HU + 1024, as some archives store it; and -3024 outside of the field of view, which the window takes for air."""
    hu = blob((20, 20, 20), 3)
    assert "note" not in read(nifti_bytes(hu, (2, 2, 2)), Modality.CT).extra
    assert "offset" in str(read(nifti_bytes(hu + np.int16(1100), (2, 2, 2)), Modality.CT).extra["note"])
    assert "note" not in read(nifti_bytes(hu + np.int16(1100), (2, 2, 2)), Modality.MR).extra

    outside = np.where(hu < -900, -3024, hu).astype(np.int16)
    assert store(read(nifti_bytes(outside, (2, 2, 2)), Modality.CT), WINDOW).array.min() == 0


def test_the_mask_of_the_background_comes_whole_out_of_the_decoder_process():
    data = nifti_bytes(brain(np.nan), (2, 2, 2))
    sample = decoder_process.decode("nifti", RawItem(uri="x", files=(data,)))

    assert np.array_equal(sample.outside, read(data).outside)
    assert np.array_equal(sample.array, read(data).array)
    assert decoder_process.decode("nifti", RawItem(uri="x", files=(nifti_bytes(VOLUME, (1, 1, 1)),))).outside is None
