"""Images that seem to be label maps, by their names or by what a display window leaves of them; and label maps that seem gray."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from crossdim.pipelines.readers.label_kinds import Values
from crossdim.pipelines.readers.label_values import classify_values, shows_gray
from crossdim.pipelines.readers.nifti_header import parse_header
from crossdim.pipelines.readers.raw import ReadRules
from tests.pipelines.corpora import blob, nifti_bytes, picture
from tests.pipelines.test_label_maps import labels, maps, outcome, write

__all__ = ["outcome"]

SHAPE = (24, 20, 16)
GRAY = blob(SHAPE, 1) + 1100
INSIDE = sum(grid**2 for grid in np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")) < 0.8
RULES = ReadRules()


def smooth(mask: np.ndarray) -> np.ndarray:
    """A mask as interpolation leaves it: (x, y, z) from 0 to 1."""
    soft = mask.astype(np.float32)
    for axis in range(3):
        soft = (np.roll(soft, 1, axis) + 2 * soft + np.roll(soft, -1, axis)) / 4
    return soft


WINDOWS = [(-45, 105), (0, 80), (20, 60), (30, 45), (35, 55), (-160, 240), (-1000, -900), (100, 300), (-200, 50)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shift", [0, 1024])
def test_a_real_scan_in_a_display_window_is_no_label_map(window, shift, real_data, tmp_path, outcome):
    """Nearly all of it may be black or white; what lies between is noise."""
    scan = nibabel.load(real_data / "ct" / "totalseg_ct_3mm.nii.gz")
    values = np.asarray(scan.dataobj).astype(np.int16)[::2, ::2, ::2]
    for name, array in (("ct", values), ("windowed", np.clip(values, *window) + shift)):
        nibabel.save(nibabel.Nifti1Image(array.astype(np.int16), scan.affine), tmp_path / f"{name}.nii.gz")

    assert maps(outcome(tmp_path)) == set()


def test_label_maps_whose_commonest_value_is_no_zero_are_label_maps(tmp_path, outcome):
    write(tmp_path / "scan.nii", GRAY)
    for name, array in {
        "body": labels(SHAPE, 3) + 1,
        "minus": labels(SHAPE, 60, "<i2") - 30,
        "cut": np.where(INSIDE, 7, 5),
    }.items():
        write(tmp_path / f"{name}.nii", array.astype("<i2"))

    assert maps(outcome(tmp_path)) == {"body.nii", "minus.nii", "cut.nii"}


@pytest.mark.parametrize("dtype", ["<i2", "<f4", "u1"])
@pytest.mark.parametrize("name", ["sub1_asl_label", "case1_mask_applied", "case1_lesion", "mask/case1", "masks/case1"])
def test_a_gray_volume_is_an_image_whatever_its_name_says(name, dtype, tmp_path, outcome):
    """A label image of arterial spin labelling, a scan within its mask, a scan of a lesion."""
    image = {"sub1_asl_label": "sub1_asl", "masks/case1": "images/case1"}.get(name, "case1")
    masked = np.where(INSIDE, GRAY % 250, 0) if "mask" in name else GRAY % 250
    write(tmp_path / f"{image}.nii", GRAY.astype("<i2"))
    write(tmp_path / f"{name}.nii", masked.astype(dtype))

    assert maps(outcome(tmp_path)) == set()


def test_label_maps_that_are_no_whole_numbers_stay_what_their_names_say(tmp_path, outcome):
    """Masks that were interpolated, as fractions, beyond them, scaled or as percentages; labels by the hundred; one value."""
    soft = smooth(INSIDE)
    parcels = (np.arange(720).reshape(12, 10, 6).repeat(2, 0).repeat(2, 1).repeat(3, 2))[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    maps_of = {
        "fractions": soft,
        "beyond": soft * 1.2 - 0.1,
        "eight_bit": np.rint(soft * 255).astype("u1"),
        "percent": soft * 100,
        "parcels": parcels.astype("<i2"),
        "empty": np.zeros(SHAPE, "u1"),
        "dots": (np.random.default_rng(0).random(SHAPE) < 0.002).astype("u1") * 200,
    }
    for name, array in maps_of.items():
        array = np.pad(array, [(0, size - n) for n, size in zip(array.shape, SHAPE, strict=True)], mode="edge")
        write(tmp_path / name / "scan.nii", GRAY)
        write(tmp_path / name / "scan_mask.nii", array.astype("<f4") if array.dtype.kind == "f" else array)

    assert maps(outcome(tmp_path)) == {f"{name}/scan_mask.nii" for name in maps_of}


def test_tissue_fractions_with_a_slope_are_fractions():
    data = bytearray(nifti_bytes((GRAY % 250).astype("u1"), (1.0, 1.0, 1.0)))
    assert shows_gray(parse_header, bytes(data), RULES)
    struct.pack_into("<ff", data, 112, 1 / 255, 0.0)
    assert not shows_gray(parse_header, bytes(data), RULES)
    assert not shows_gray(parse_header, bytes(data[:-1]), RULES)


def test_a_layout_needs_no_look_at_the_voxels(tmp_path, outcome):
    write(tmp_path / "imagesTr" / "a_0000.nii", GRAY)
    write(tmp_path / "labelsTr" / "a.nii", GRAY)

    assert maps(outcome(tmp_path)) == {"labelsTr/a.nii"}


def save(path: Path, image: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def photograph(seed: int) -> np.ndarray:
    """(H, W, 3) with a flat background, as of a product."""
    colour = np.stack([picture(seed + n, 120, 160) for n in range(3)], axis=-1)
    colour[:, :50] = 255
    return colour


@pytest.mark.parametrize("name", ["p1_mask.png", "p1_mask.jpg", "p1_lesion.png", "mask/p1.png", "masks/p1.png"])
@pytest.mark.parametrize("gray", [True, False])
def test_a_photograph_named_mask_or_lesion_is_an_image(name, gray, tmp_path, outcome):
    first = "images/p1.png" if name.startswith("masks") else "p1.png"
    for path, seed in ((first, 1), (name, 5)):
        save(tmp_path / path, photograph(seed)[..., 0] if gray else photograph(seed))
    save(tmp_path / "p2.png", photograph(9))

    assert maps(outcome(tmp_path, recipe="xray-pseudo3d:tiny")) == set()


def masks() -> dict[str, bytes]:
    """Masks of pictures in the forms that they are published in, by file name."""
    down, right = np.mgrid[:120, :160]
    disc = ((down - 60) ** 2 + (right - 80) ** 2 < 40**2).astype(np.uint8) * 255
    vessel = (np.abs(60 + 30 * np.sin(right / 12) - down) < 2).astype(np.uint8) * 255
    colours = np.stack([disc, np.roll(disc, 30, 1), vessel], axis=-1)
    palette = Image.fromarray(disc // 255 + vessel // 255).convert("P")
    small = Image.fromarray(disc).resize((80, 60), Image.Resampling.BILINEAR).resize((160, 120), Image.Resampling.BICUBIC)
    made = {
        "one_bit.png": Image.fromarray(disc).convert("1"),
        "gray.png": Image.fromarray(disc),
        "rgb.png": Image.fromarray(np.stack([disc] * 3, axis=-1)),
        "colours.png": Image.fromarray(colours),
        "palette.png": palette,
        "interpolated.png": small,
        "vessel.png": Image.fromarray(vessel),
        "empty.png": Image.fromarray(disc * 0),
        "disc.jpg": Image.fromarray(disc),
        "vessel.jpg": Image.fromarray(vessel),
        "rgb.jpg": Image.fromarray(np.stack([disc] * 3, axis=-1)),
    }
    found = {}
    for name, image in made.items():
        buffer = io.BytesIO()
        image.save(buffer, "PNG" if name.endswith("png") else "JPEG")
        found[name] = buffer.getvalue()
    return found


def test_masks_of_pictures_stay_label_maps_in_every_form(tmp_path, outcome):
    for name, data in masks().items():
        stem, _, kind = name.partition(".")
        save(tmp_path / f"{stem}_{kind}.png", photograph(1))
        (tmp_path / f"{stem}_{kind}_mask.{kind}").write_bytes(data)
    (tmp_path / "cut.png").write_bytes((tmp_path / "gray_png.png").read_bytes())
    (tmp_path / "cut_mask.png").write_bytes(masks()["colours.png"][:-50])
    found = maps(outcome(tmp_path, recipe="xray-pseudo3d:tiny"))

    assert found == {f"{name.replace('.', '_')}_mask.{name.partition('.')[2]}" for name in masks()} | {"cut_mask.png"}


@pytest.mark.parametrize("code", [1002, 1003, 0, 1001])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_intent_of_labels_makes_a_label_map_of_what_looks_like_one(code, order, tmp_path, outcome):
    """Alone in its grid, where few values are an image otherwise; gray values are an image all the same."""
    for name, array in (("atlas", labels(SHAPE, 4, "<i2")), ("scan", GRAY.astype("<i2"))):
        image = nibabel.Nifti1Image(array, np.diag([1, 1, len(name), 1.0]))
        image.header["intent_code"] = code
        swapped = nibabel.Nifti1Image(array, image.affine, image.header.as_byteswapped(order))
        (tmp_path / f"{name}.nii").write_bytes(swapped.to_bytes())

    assert maps(outcome(tmp_path)) == ({"atlas.nii"} if code in (1002, 1003) else set())


def test_noise_of_three_values_is_no_label_map():
    """Where the smallest, largest and commonest value are all that there are, the commonest alone is background."""
    counts = np.random.default_rng(0).integers(0, 3, SHAPE)

    assert classify_values(parse_header, nifti_bytes(counts.astype("u1"), (1.0, 1.0, 1.0)), RULES) is Values.OTHER
