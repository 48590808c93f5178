"""Grey values of DICOM files: padding, modality LUT, rescale and display polarity, against pydicom and closed forms."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from crossdim.pipelines.stages.intensity import Intensity, store
from crossdim.pipelines.stages.orient import orient
from crossdim.pipelines.stages.resample import Resample, resample
from crossdim.storage_schema.errors import SampleError
from tests.pipelines.corpora import picture
from tests.pipelines.dicom_files import AXIAL, dicom_bytes, dicom_dataset, lut_item, read_image, read_series, series_bytes

WINDOW = Intensity(window_hu=(-1000, 1000))
RNG = np.random.default_rng(5)


def refusal(read, *arguments: object) -> SampleError:
    with pytest.raises(SampleError) as caught:
        read(*arguments)
    return caught.value


def phantom(dtype: type = np.uint16) -> np.ndarray:
    """A block of tissue, 40 HU and up along W, in air of -1000 HU; stored with 1024 added."""
    volume = np.full((8, 24, 24), 24, dtype)
    volume[2:-2, 6:-6, 6:-6] = 1064 + np.arange(12, dtype=dtype)
    return volume


@pytest.mark.parametrize(
    ("tags", "dtype", "padding"),
    [
        ({"PixelPaddingValue": ("US", 63536)}, np.uint16, 63536),
        ({"PixelPaddingValue": ("SS", -2000)}, np.uint16, 63536),
        ({"PixelPaddingValue": ("SS", -2000)}, np.int16, -2000),
        ({"PixelPaddingValue": ("US", 63536)}, np.int16, -2000),
        ({"PixelPaddingValue": ("US", 4000), "PixelPaddingRangeLimit": ("US", 4095)}, np.uint16, 4050),
        ({"PixelPaddingValue": ("US", 4095), "PixelPaddingRangeLimit": ("US", 4000)}, np.uint16, 4050),
        ({"PixelPaddingValue": ("SS", -1500), "PixelPaddingRangeLimit": ("SS", -2000)}, np.int16, -1800),
        ({"PixelPaddingValue": ("US", 63536), "BitsStored": 12, "HighBit": 11}, np.uint16, 63536),
    ],
    ids=lambda value: str(value)[:60],
)
def test_padding_of_ct_is_air_whatever_number_stands_for_it(tags, dtype, padding):
    """The same phantom with padding around it gives the same HU inside, and air, stored as 0, outside."""
    plain = phantom(dtype)
    volume = plain.copy()
    volume[:, :4] = volume[:, -4:] = padding
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    sample = read_series(series_bytes(volume, **rescale, **tags))
    stored = store(orient(sample), WINDOW)

    assert (sample.scaling.low, sample.scaling.high) == (-1000, 51)
    assert np.array_equal(sample.array, read_series(series_bytes(plain, **rescale)).array)
    assert np.array_equal(sample.outside, np.broadcast_to(volume == padding, volume.shape))
    assert stored.array.max() == 1051
    assert stored.array[0][orient(sample).outside].max() == 0
    assert stored.outside is None
    assert "padding" in str(sample.extra["note"])


def test_air_outside_is_stored_as_zero_under_every_window_and_after_resampling():
    """A window that begins below air, and voxels of another size: zero is outside all the same."""
    volume = phantom()
    volume[:, :, :4] = 3000
    sample = read_series(series_bytes(volume, RescaleSlope=1, RescaleIntercept=-1024, PixelPaddingValue=3000))
    fine = store(resample(orient(sample), Resample(spacing_mm=1.0)), Intensity(window_hu=(-2000, 1000)))
    padded_columns = (orient(sample).outside[0, 0]).repeat(2)

    assert fine.array.shape == (1, 16, 48, 48)
    assert padded_columns.sum() == 8
    assert fine.array[0][:, :, padded_columns].max() == 0
    assert fine.array[0][:, :, ~padded_columns].min() > 0


def test_padding_beside_tissue_blends_with_air_and_not_with_tissue():
    """A field of view inside of the body: no air in it, and yet air outside, also where voxels between are interpolated."""
    volume = np.full((8, 24, 24), 1064, np.uint16)
    volume[::2] += 10
    volume[:, :8] = 4000
    sample = read_series(series_bytes(volume, RescaleSlope=1, RescaleIntercept=-1024, PixelPaddingValue=4000))

    assert set(sample.array[0][sample.outside]) == {-1000}
    assert (sample.scaling.low, sample.scaling.high) == (40, 50)


def test_orienting_turns_what_is_outside_with_the_voxels():
    """Every slice from head to feet, and padding in one corner."""
    volume = phantom()
    volume[:2, :3, :5] = 4000
    files = series_bytes(volume, RescaleSlope=1, RescaleIntercept=-1024, PixelPaddingValue=4000)
    oriented = orient(read_series(files))

    assert np.array_equal(oriented.outside, orient(read_series(files[::-1])).outside)
    assert np.argwhere(oriented.outside).min(axis=0).tolist() == [0, 21, 19]
    assert oriented.outside.sum() == 2 * 3 * 5


def test_padding_takes_no_part_in_the_window_of_mr():
    values = RNG.integers(200, 900, (6, 20, 20)).astype(np.int16)
    find_padding = values.copy()
    find_padding[:, :5] = -5000
    tags = {"Modality": "MR", "RescaleSlope": 2, "RescaleIntercept": 7}
    sample = store(read_series(series_bytes(find_padding, PixelPaddingValue=("SS", -5000), **tags)), WINDOW)
    low, high = np.percentile(values[:, 5:].astype(np.float32) * 2 + 7, (0.5, 99.5))

    assert (sample.scaling.low, sample.scaling.high) == (pytest.approx(low), pytest.approx(high))
    assert sample.array[0, :, :5].max() == 0


def test_a_slice_of_padding_alone_is_no_fault_and_a_volume_of_it_is():
    volume = phantom()
    volume[0] = 5000
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024, "PixelPaddingValue": 5000}
    assert read_series(series_bytes(volume, **rescale)).outside.sum() == 24 * 24

    volume[:] = 5000
    assert refusal(read_series, series_bytes(volume, **rescale)).rule == "no_voxels"
    assert refusal(read_image, dicom_bytes(volume[0], **rescale)).rule == "padding"
    assert refusal(read_image, dicom_bytes(volume[0], PixelPaddingValue=("LO", "five"))).rule == "padding"


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
@pytest.mark.parametrize("padding", ["low", "high"])
def test_padding_of_an_image_is_black_and_no_part_of_its_range(photometric, dtype, padding):
    """Inside, values are those of the image without padding; outside there is zero, inverted or not."""
    inside = RNG.integers(10, 200, (30, 40)).astype(dtype)
    value = 0 if padding == "low" else 255
    framed = np.pad(inside, 5, constant_values=value)
    tags = {"PhotometricInterpretation": photometric, "Modality": "DX"}
    sample = read_image(dicom_bytes(framed, PixelPaddingValue=value, **tags))
    alone = read_image(dicom_bytes(inside, **tags))

    assert np.array_equal(sample.array[0, 5:-5, 5:-5], alone.array[0])
    assert sample.scaling == alone.scaling
    assert sample.array[0, :5].max() == sample.array[0, :, -5:].max() == 0


@given(
    st.sampled_from([np.uint8, np.uint16, np.int16]),
    st.floats(0.01, 50).flatmap(lambda slope: st.sampled_from([slope, -slope])),
    st.floats(-2000, 2000),
)
@pytest.mark.integration
def test_an_image_means_what_pydicom_reads_and_is_brighter_where_that_is_higher(dtype, slope, intercept):
    """Every depth, both signs of the slope, fractions too."""
    slope, intercept = float(f"{slope:.6g}"), float(f"{intercept:.6g}")
    pixels = RNG.integers(0, 250, (12, 13)).astype(dtype)
    data = dicom_bytes(pixels, RescaleSlope=slope, RescaleIntercept=intercept, Modality="CR")
    sample = read_image(data)
    expected = apply_modality_lut(pixels, pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)))

    assert np.allclose(sample.scaling.physical(sample.array[0]), expected, rtol=1e-4, atol=1e-3 * abs(slope) + 1e-2)
    assert sample.scaling.low < sample.scaling.high
    assert (np.diff(sample.unit()[0].ravel()[np.argsort(expected.ravel(), kind="stable")]) >= -1e-6).all()
    assert sample.array.dtype == (np.uint8 if dtype is np.uint8 else np.uint16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", None, False),
    ],
)
@pytest.mark.parametrize("slope", [1, -1])
def test_the_lowest_value_is_white_where_either_tag_says_so(dtype, photometric, shape, inverted, slope):
    """Once, not twice; and a falling rescale turns it round again."""
    pixels = np.linspace(0, 255, 256).reshape(16, 16).astype(dtype)
    sample = read_image(
        dicom_bytes(
            pixels,
            Modality="DX",
            PhotometricInterpretation=photometric,
            PresentationLUTShape=shape,
            RescaleSlope=slope,
            RescaleIntercept=0,
        )
    )
    falling = inverted != (slope < 0)

    assert np.array_equal(sample.array[0], 255 - pixels if falling else pixels)
    assert (sample.unit()[0, 0, 0] == 1) == falling
    assert ("white" in str(sample.extra.get("note"))) == inverted


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"WindowCenter": 1000, "WindowWidth": 400}, "display window of centre 1000 and width 400"),
        (
            {"WindowCenter": [40, 300], "WindowWidth": [80.5, 900], "VOILUTFunction": "SIGMOID"},
            "display sigmoid of centre 40 and width 80.5",
        ),
        ({"VOILUTSequence": [lut_item(0, np.arange(256, dtype=np.uint8))]}, "display table (VOI LUT)"),
        ({"WindowCenter": ""}, None),
    ],
)
def test_the_display_window_of_an_image_is_told_and_not_applied(tags, message):
    pixels = RNG.integers(0, 4096, (20, 20)).astype(np.uint16)
    sample = read_image(dicom_bytes(pixels, Modality="DX", **tags))

    assert np.array_equal(sample.scaling.physical(sample.array[0]), pixels)
    assert str(sample.extra.get("note")).startswith(message or "None")


@pytest.mark.parametrize(("first", "dtype"), [(-300, np.int16), (0, np.int16), (200, np.int16), (0, np.uint16), (200, np.uint16)])
@pytest.mark.parametrize("entry", [np.uint8, np.uint16])
def test_a_modality_lut_gives_what_pydicom_gives_in_images_and_volumes(first, entry, dtype):
    """Entries fall, so the image is turned round; values beyond the table take its ends."""
    entries = np.linspace(250, 3, 600).astype(entry)
    pixels = RNG.integers(0 if dtype is np.uint16 else -800, 900, (4, 20, 21)).astype(dtype)
    tags = {"ModalityLUTSequence": [lut_item(first, entries)], "Modality": "CR"}
    expected = apply_modality_lut(pixels, dicom_dataset(pixels[0], **tags))
    image = read_image(dicom_bytes(pixels[0], **tags))
    volume = read_series(series_bytes(pixels, **tags))

    assert np.array_equal(image.scaling.physical(image.array[0]), expected[0])
    assert np.array_equal(volume.array[0], expected)


def test_a_modality_lut_of_bytes_and_of_65536_entries_is_read():
    entries = np.arange(256, dtype=np.uint8)[::-1].copy()
    narrow = lut_item(0, entries)
    narrow.add_new("LUTData", "OW", entries.tobytes())
    pixels = RNG.integers(0, 256, (9, 9)).astype(np.uint16)
    assert np.array_equal(read_image(dicom_bytes(pixels, ModalityLUTSequence=[narrow])).array[0], 255 - pixels)

    narrow.LUTDescriptor = [256, 0, 16]  # stated, not held: libraries write one byte an entry
    assert np.array_equal(read_image(dicom_bytes(pixels, ModalityLUTSequence=[narrow])).array[0], 255 - pixels)

    wide = lut_item(0, np.arange(65535, -1, -1, dtype=np.uint16))
    sample = read_image(dicom_bytes(pixels, ModalityLUTSequence=[wide]))
    assert np.array_equal(sample.scaling.physical(sample.array[0]), 65535.0 - pixels)


@pytest.mark.parametrize("damage", ["short", "shorter", "odd", "no_data", "no_descriptor", "depth"])
def test_a_modality_lut_that_does_not_fit_its_descriptor_is_refused(damage):
    item = lut_item(0, np.arange(300, dtype=np.uint16))
    if damage in ("short", "shorter", "odd"):
        item.add_new("LUTData", "OW", b"\0" * {"short": 598, "shorter": 100, "odd": 597}[damage])
    elif damage == "no_data":
        del item.LUTData
    elif damage == "no_descriptor":
        del item.LUTDescriptor
    else:
        item.LUTDescriptor = [300, 0, 24]

    assert refusal(read_image, dicom_bytes(np.ones((4, 4), np.uint16), ModalityLUTSequence=[item])).rule == "modality_lut"


def test_each_slice_has_its_own_rescale_falling_and_fractional():
    pixels = RNG.integers(0, 4000, (5, 12, 12)).astype(np.uint16)
    slopes, intercepts = [1.0, 0.25, -0.5, 3.1, -1.0], [-1024.0, 10.5, 700.0, 0.0, 40.0]
    files = tuple(
        series_bytes(pixels, RescaleSlope=slope, RescaleIntercept=intercept)[depth]
        for depth, (slope, intercept) in enumerate(zip(slopes, intercepts, strict=True))
    )
    expected = pixels * np.array(slopes)[:, None, None] + np.array(intercepts)[:, None, None]

    assert np.array_equal(read_series(files).array[0], expected.astype(np.float32))


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_an_enhanced_object_of_one_frame_has_its_rescale_in_functional_groups(groups):
    values, group = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2, -1024, "HU"
    group.PixelValueTransformationSequence = [values]
    sample = read_image(dicom_bytes(phantom()[3], NumberOfFrames=1, **{groups: [group]}))

    assert np.array_equal(sample.scaling.physical(sample.array[0]), phantom()[3] * 2.0 - 1024)
    assert "note" not in sample.extra


@pytest.mark.parametrize(("slope", "intercept"), [(0, -1024), ("nan", 0), (1, "inf"), ([1, 2], 0)])
def test_a_rescale_that_is_none_is_refused_by_its_name(slope, intercept):
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    if isinstance(slope, list):
        tags["RescaleSlope"] = ("DS", slope)

    assert refusal(read_series, series_bytes(phantom(), **tags)).rule == "rescale"
    assert refusal(read_image, dicom_bytes(phantom()[3], **tags)).rule == "rescale"


def test_a_number_with_a_comma_is_refused_and_not_quoted():
    data = dicom_bytes(phantom()[3], RescaleSlope=1, RescaleIntercept="-1024").replace(b"-1024 ", b"-1,24 ")
    error = refusal(read_image, data)

    assert error.rule == "rescale"
    assert "24" not in error.reason


@pytest.mark.parametrize("modality", ["PT", "NM", "MR", "CT"])
@pytest.mark.parametrize(
    ("stated", "missing"),
    [
        ({"RescaleSlope": 20, "RescaleIntercept": 0}, {}),
        ({"RescaleSlope": 20, "RescaleIntercept": 0}, {"RescaleIntercept": 0}),
        ({"RescaleSlope": 1, "RescaleIntercept": -5}, {"RescaleSlope": 1}),
        ({"ModalityLUTSequence": [lut_item(0, np.arange(1, 60001, dtype="<u2"))]}, {}),
    ],
)
def test_a_slice_without_the_rescale_that_the_others_state_is_refused_by_name(modality, stated, missing):
    volume = phantom()
    files = [
        dicom_bytes(
            pixels, **AXIAL, Modality=modality, ImagePositionPatient=[0, 0, 2 * depth], **(missing if depth == 3 else stated)
        )
        for depth, pixels in enumerate(volume)
    ]
    error = refusal(read_series, tuple(files))

    assert (error.rule, error.files) == ("missing_rescale", (3,))


@pytest.mark.parametrize("modality", ["PT", "MR"])
def test_slices_that_state_a_rescale_of_one_are_those_that_state_none(modality):
    volume = phantom()
    files = [
        dicom_bytes(
            pixels, **AXIAL, Modality=modality, ImagePositionPatient=[0, 0, 2 * depth], **({"RescaleSlope": 1} if depth else {})
        )
        for depth, pixels in enumerate(volume)
    ]

    assert np.array_equal(read_series(tuple(files)).array[0], volume)


@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": "", "RescaleIntercept": ""}])
def test_ct_without_rescale_is_read_as_stored_and_says_so(rescale):
    pixels = phantom(np.int16) - 1024
    sample, image = read_series(series_bytes(pixels, **rescale)), read_image(dicom_bytes(pixels[3], **rescale))

    assert np.array_equal(sample.array[0], pixels)
    assert "CT without RescaleSlope" in str(sample.extra["note"])
    assert "CT without RescaleSlope" in str(image.extra["note"])
    assert "note" not in read_series(series_bytes(pixels, Modality="MR", **rescale)).extra


def test_ct_that_cannot_be_in_hounsfield_units_says_so():
    """Stored with 1024 added and no intercept; and rescaled to a unit that is not HU."""
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 0}
    assert "offset" in str(read_series(series_bytes(phantom(), **rescale)).extra["note"])

    rescale["RescaleIntercept"] = -1024
    assert "note" not in read_series(series_bytes(phantom(), RescaleType="HU", **rescale)).extra
    assert "no HU" in str(read_series(series_bytes(phantom(), RescaleType="MGML", **rescale)).extra["note"])


@pytest.mark.parametrize("tags", [{"PhotometricInterpretation": "MONOCHROME1"}, {"PresentationLUTShape": "INVERSE"}])
def test_volumes_keep_values_that_have_a_unit_and_refuse_inverted_ones_that_have_none(tags):
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024}
    plain = read_series(series_bytes(phantom(), **rescale)).array
    for modality in ("CT", "PT", "NM"):
        sample = read_series(series_bytes(phantom(), Modality=modality, **rescale, **tags))
        assert np.array_equal(sample.array, plain)
        assert "white" in str(sample.extra["note"])

    assert refusal(read_series, series_bytes(phantom(), Modality="MR", **tags)).rule == "photometric"


def test_bits_above_those_stored_are_left_out_signed_and_unsigned():
    """An overlay in bit 12, and 12-bit signed values without sign extension."""
    plain = phantom()
    overlaid = plain.copy()
    overlaid[:, 3:9] |= 0xF000
    twelve = {"BitsStored": 12, "HighBit": 11}
    assert np.array_equal(read_series(series_bytes(overlaid, **twelve)).array[0], plain)

    signed = plain.astype(np.int16) - 1024
    packed = (signed.view(np.uint16) & 0x0FFF).view(np.int16)
    assert np.array_equal(read_series(series_bytes(packed, **twelve)).array[0], signed)
    assert refusal(read_image, dicom_bytes(plain[3] << 4, BitsStored=12, HighBit=15)).rule == "high_bit"


def test_one_bit_becomes_black_and_white():
    bits = RNG.integers(0, 2, (16, 24)).astype(np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").reshape(16, 3)
    sample = read_image(dicom_bytes(packed, Rows=16, Columns=24, BitsAllocated=1, BitsStored=1, HighBit=0))

    assert np.array_equal(sample.array[0], bits * 255)
    assert np.allclose(sample.scaling.physical(sample.array[0]), bits)


def test_few_bits_fill_the_whole_range():
    """Four of eight bits: 15 is white."""
    pixels = RNG.integers(0, 16, (9, 9)).astype(np.uint8)
    sample = read_image(dicom_bytes(pixels, BitsStored=4, HighBit=3))

    assert np.allclose(sample.unit()[0], pixels / 15)


def test_colour_images_are_rgb_and_colour_volumes_are_refused_by_name():
    rgb = np.dstack([picture(number) for number in range(3)])
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "Modality": "US"}
    sample = read_image(dicom_bytes(rgb, PhotometricInterpretation="RGB", **colour))

    assert np.array_equal(sample.array, rgb.transpose(2, 0, 1))
    assert refusal(read_series, series_bytes(rgb[None], PhotometricInterpretation="RGB", **colour)).rule == "colour"


def test_ybr_becomes_rgb_by_the_formula_of_the_standard():
    """PS3.3 C.7.6.3.1.2; here on colours that RGB can show."""
    rgb = np.dstack([picture(number) for number in range(3)]).astype(np.float64)
    to_ybr = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    ybr = np.rint(rgb @ to_ybr.T + [0, 128, 128]).astype(np.uint8)
    tags = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "YBR_FULL"}

    assert np.abs(read_image(dicom_bytes(ybr, **tags)).array.astype(int) - rgb.transpose(2, 0, 1)).max() <= 2


def palette(count: int, entry: type, first: int = 0) -> dict[str, object]:
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR", "Modality": "US"}
    for number, name in enumerate(("Red", "Green", "Blue")):
        entries = (np.arange(count) * (number + 1) * 7).astype(entry)
        tags[f"{name}PaletteColorLookupTableDescriptor"] = ("US", [count, first, 8 * entries.dtype.itemsize])
        tags[f"{name}PaletteColorLookupTableData"] = ("OW", entries.tobytes())
    return tags


@pytest.mark.parametrize(("count", "entry", "first"), [(256, np.uint8, 0), (100, np.uint8, 50), (1000, np.uint16, 3)])
def test_a_palette_gives_the_colours_that_pydicom_gives(count, entry, first):
    pixels = RNG.integers(0, min(count + 2 * first, 1200), (11, 12)).astype(np.uint8 if count <= 256 else np.uint16)
    tags = palette(count, entry, first)
    expected = apply_color_lut(pixels.astype(np.uint16), dicom_dataset(pixels, **tags))
    sample = read_image(dicom_bytes(pixels, **tags))

    assert np.array_equal(sample.array, (expected >> (8 * (entry is np.uint16))).transpose(2, 0, 1).astype(np.uint8))
    assert sample.array.dtype == np.uint8
    assert refusal(read_series, series_bytes(pixels[None], **tags)).rule == "palette_colour"


def test_a_palette_of_more_entries_than_their_depth_counts_is_looked_up_right():
    """16-bit pixels into 600 entries of 8 bits, where pydicom 3.0 counts modulo 256."""
    entries = (np.arange(600) // 3).astype(np.uint8)
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = ("US", [600, 0, 8])
        tags[f"{name}PaletteColorLookupTableData"] = ("OW", entries.tobytes())
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30)

    assert np.array_equal(read_image(dicom_bytes(pixels, **tags)).array[1], pixels // 3)


def test_kinds_that_are_not_read_are_refused_by_their_own_name():
    pixels = picture(1)
    float_pixels = dicom_bytes(pixels, FloatPixelData=("OF", pixels.astype("<f4").tobytes()), PixelData=None, BitsAllocated=32)
    double = dicom_bytes(pixels, DoubleFloatPixelData=("OD", pixels.astype("<f8").tobytes()), PixelData=None, BitsAllocated=64)

    assert refusal(read_image, float_pixels).rule == refusal(read_image, double).rule == "float_pixels"
    assert refusal(read_image, dicom_bytes(pixels, PhotometricInterpretation="PALETTE COLOR")).rule == "palette_colour"
    secret = refusal(read_image, dicom_bytes(pixels, PhotometricInterpretation="DOE^JANE"))
    assert secret.rule == "photometric"
    assert "DOE" not in secret.reason


@pytest.mark.parametrize(("slope", "intercept"), [("1e300", "0"), ("-1e30", "0"), ("1", "-1e39")])
def test_a_rescale_beyond_float32_is_refused_by_its_name(slope, intercept):
    message = refusal(
        read_series, series_bytes(RNG.integers(0, 9, (4, 8, 8)).astype(np.uint16), RescaleSlope=slope, RescaleIntercept=intercept)
    )
    assert (message.rule, "beyond the range of float32" in message.reason) == ("rescale", True)
