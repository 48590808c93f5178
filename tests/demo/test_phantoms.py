"""Phantoms are what they say they are: their files are measured here with other people's readers."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from demo.phantoms import (
    AIR_HU,
    BODY_HU,
    IMAGE_LABELS,
    LARGEST_MM,
    OBJECT_HU,
    ORIENTATIONS,
    VOLUME_LABELS,
    nifti_bytes,
    phantom_image,
    phantom_volume,
    write_phantoms,
)


def read(phantom) -> nib.Nifti1Image:
    """The volume as nibabel reads its file, in canonical axes."""
    return nib.as_closest_canonical(nib.Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(phantom))))


def centre_and_volume(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle in mm and volume in mm^3 of the voxels of a mask."""
    indices = np.argwhere(mask)
    return nib.affines.apply_affine(affine, indices.mean(axis=0)), len(indices) * abs(np.linalg.det(affine[:3, :3]))


@pytest.mark.parametrize("label", ["sphere", "cube"])
@pytest.mark.parametrize("number", range(4))
def test_the_object_lies_where_the_phantom_says(label, number):
    """Affine, orientation and spacing all enter; a pipeline that mixes up axes can be caught by this position."""
    phantom = phantom_volume(7, label, number)
    image = read(phantom)
    centre, volume = centre_and_volume(image.get_fdata() > (OBJECT_HU + BODY_HU) / 2, image.affine)
    size = phantom.object_size_mm
    expected = 4 / 3 * np.pi * size**3 if label == "sphere" else (2 * size) ** 3

    assert np.abs(centre - phantom.object_centre_mm).max() < 0.5 * max(image.header.get_zooms())
    assert volume == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("label", VOLUME_LABELS)
def test_the_body_is_an_ellipsoid_of_soft_tissue_in_air(label):
    """Window, foreground and normalisation are tested with these two densities."""
    phantom = phantom_volume(7, label, 0)
    image = read(phantom)
    values = image.get_fdata()
    body = values > (AIR_HU + BODY_HU) / 2
    centre, volume = centre_and_volume(body, image.affine)

    assert np.abs(centre - phantom.body_centre_mm).max() < 0.5 * max(image.header.get_zooms())
    assert volume == pytest.approx(4 / 3 * np.pi * np.prod(phantom.body_axes_mm), rel=0.02)
    assert np.median(values[body]) == pytest.approx(BODY_HU, abs=2)
    assert np.median(values[~body]) == pytest.approx(AIR_HU, abs=2)
    assert (values[~body] < -900).all()


def test_without_an_object_nothing_is_bright():
    """Otherwise the class would be a lie."""
    assert phantom_volume(7, "none", 0).voxels_XYZ.max() < (OBJECT_HU + BODY_HU) / 2


def test_sphere_and_cube_cannot_be_told_apart_by_their_mean():
    """An encoder that only learned brightness must not look good on the probe."""
    bright = {label: [np.mean(phantom_volume(0, label, n).voxels_XYZ > 200) for n in range(12)] for label in ("sphere", "cube")}
    low, high = max(map(min, bright.values())), min(map(max, bright.values()))

    assert low < high


@pytest.mark.integration
def test_files_state_their_orientation_spacing_and_units():
    """Every orientation occurs, spacing is anisotropic, and no phantom is larger than one box of the tiny recipe."""
    seen = set()
    for number in range(40):
        phantom = phantom_volume(0, "none", number)
        seen.add(phantom.orientation)
        zooms = np.linalg.norm(phantom.affine[:3, :3], axis=0)

        assert "".join(nib.aff2axcodes(phantom.affine)) == phantom.orientation
        assert zooms.max() > 1.05 * zooms.min()
        assert (np.array(phantom.voxels_XYZ.shape) * zooms).max() < LARGEST_MM
    image = read(phantom)

    assert seen == set(ORIENTATIONS)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.int16


@pytest.mark.parametrize("label", IMAGE_LABELS)
def test_texture_is_inside_the_disc_and_background_outside(label):
    """All labels have the same disc, so place and size say nothing about them."""
    phantom = phantom_image(3, label, 0)
    y, x = np.ogrid[: phantom.pixels_HW.shape[0], : phantom.pixels_HW.shape[1]]
    distance = np.hypot(y - phantom.centre_yx[0], x - phantom.centre_yx[1])
    inside, outside = (
        phantom.pixels_HW[mask].astype(float) for mask in (distance < phantom.radius - 1, distance > phantom.radius + 1)
    )

    assert phantom.pixels_HW.dtype == np.uint8
    assert inside.mean() - outside.mean() == pytest.approx(50, abs=20)
    assert (inside.std() > 30) == (label != "disc")


def test_sizes_vary():
    """A pipeline that only works for one size would pass otherwise."""
    assert len({phantom_image(0, "disc", n).pixels_HW.shape for n in range(8)}) > 6


def written(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


def test_equal_seeds_write_equal_files(tmp_path):
    """Byte for byte: tests elsewhere pin digests of what is prepared from them."""
    counts = [
        write_phantoms(tmp_path / name, seed, images_per_label=2, volumes_per_label=1)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = (written(tmp_path / name) for name in "abc")

    assert counts == [9, 9, 9]
    assert a == b
    assert set(a) == set(c)
    assert not set(a.values()) & set(c.values())
    assert len(set(a.values())) == 9
    assert (tmp_path / "a/ct/cube/phantom-00.nii.gz").read_bytes()[4:8] == bytes(4)  # gzip's time of writing
    assert {"xray/disc/phantom-01.png", "ct/cube/phantom-00.nii.gz"} < set(a)


def test_asking_for_more_changes_none_of_the_others(tmp_path):
    """A larger demonstration contains the smaller one."""
    write_phantoms(tmp_path / "few", 1, images_per_label=1, volumes_per_label=1)
    write_phantoms(tmp_path / "many", 1, images_per_label=2, volumes_per_label=2)

    assert written(tmp_path / "few").items() <= written(tmp_path / "many").items()


def test_an_image_file_holds_the_pixels(tmp_path):
    """PNG is exact."""
    write_phantoms(tmp_path, 5, images_per_label=1, volumes_per_label=0)

    with Image.open(tmp_path / "xray/rings/phantom-00.png") as opened:
        assert np.array_equal(np.asarray(opened), phantom_image(5, "rings", 0).pixels_HW)
