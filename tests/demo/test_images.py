"""Sample images come out of installed wheels, without a network, and are what their folders say."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from crossdim.storage_schema.errors import UsageError
from demo import images
from demo.images import BROKEN_IMAGE, BROKEN_VOLUME, list_carried_files, write_sample_images


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("samples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a sample image was looked for on the network"))
        assert write_sample_images(root) == sum(path.is_file() for path in root.rglob("*"))
    return root


def files(root: Path, *suffixes: str) -> list[Path]:
    broken = {root / BROKEN_IMAGE, root / BROKEN_VOLUME}
    return [p for p in sorted(root.rglob("*")) if p.name.endswith(suffixes) and p not in broken]


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


@pytest.mark.integration
def test_every_dicom_file_has_pixels(root):
    """With the codecs of crossdim[dicom]: JPEG 2000, JPEG-LS, RLE, and what needs none."""
    found = files(root, ".dcm")

    assert len(found) > 20
    assert all(pydicom.dcmread(path).pixel_array.size for path in found)


def test_every_nifti_file_has_voxels(root):
    """Read to the last byte; two of them have a time axis, which is for a reader to notice."""
    assert sorted(len(nib.load(path).get_fdata().shape) for path in files(root, ".nii", ".nii.gz")) == [3, 3, 3, 4, 4, 4]


def test_every_picture_opens(root):
    """Colour and gray, PNG and JPEG."""
    found = files(root, ".png", ".jpg")

    assert {picture(path).ndim for path in found} == {2, 3}
    assert {picture(path).dtype for path in found} == {np.dtype(np.uint8)}


def test_slices_of_the_template_have_the_face_up(root):
    """The template is stored with x to the right and y to the front; pictures are read from the upper left corner."""
    source = nib.load(next(root.rglob("mni_*.nii.gz")))
    volume = np.asarray(source.dataobj)
    pixels = picture(root / "images2d/mr/template-z072.png")

    assert nib.aff2axcodes(source.affine) == ("R", "A", "S")
    assert pixels.shape == (volume.shape[1], volume.shape[0])
    assert np.abs(pixels[::-1].T / 255 - volume[:, :, 72] / volume.max()).max() < 0.51 / 255


def test_one_image_and_one_volume_are_broken(root):
    """A demonstration without a refused file would not show what happens to one."""
    with pytest.raises(ValueError, match="less than expected"):
        _ = pydicom.dcmread(root / BROKEN_IMAGE).pixel_array
    with pytest.raises(EOFError):
        nib.load(root / BROKEN_VOLUME).get_fdata()


def test_files_are_copied_byte_for_byte(root):
    """Readers are tried on what others wrote, not on what we wrote again."""
    assert all((root / carried.target).read_bytes() == carried.source.read_bytes() for carried in list_carried_files())


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch, tmp_path):
    """One line that can be pasted."""
    monkeypatch.setattr(images, "find_spec", lambda name: None)

    with pytest.raises(UsageError, match=r"pip install 'crossdim\[demo\]'"):
        images._folder("nilearn")


def test_a_file_that_a_wheel_no_longer_carries_is_said(monkeypatch, caplog):
    """The versions of these packages are a range."""
    monkeypatch.setattr(images, "CARRIED", {"images2d/ct": ("pydicom", "data/test_files", ("CT_small.dcm", "gone.dcm"))})
    with caplog.at_level(logging.WARNING):
        found = list(list_carried_files())

    assert [carried.target for carried in found] == ["images2d/ct/CT_small.dcm"]
    assert "pydicom carries no gone.dcm" in caplog.text
