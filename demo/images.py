"""Real sample images that installed packages carry inside their wheels. Nothing is downloaded.

Two files are broken on purpose, one image and one volume, so that a quarantine has something in it. Others may be refused for
what they are: localizers are no volumes, and colour ultrasound is no gray picture.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from crossdim.storage_schema.errors import UsageError
from demo.phantoms import png_bytes

logger = logging.getLogger(__name__)

TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
#: Axial slices of the template that become images; above and below there is no brain.
SLICES = range(24, 150, 12)
BROKEN_IMAGE = "images2d/mr/MR_truncated.dcm"
BROKEN_VOLUME = "volumes/mr/template-cut-in-half.nii.gz"

#: Folder below the root -> package and the files, or folders of slices, that its wheel carries.
CARRIED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "images2d/ct": ("pydicom", "data/test_files", ("CT_small.dcm", "693_J2KI.dcm")),
    "images2d/mr": (
        "pydicom",
        "data/test_files",
        (
            "MR_small.dcm",
            "MR_small_RLE.dcm",
            "MR_small_bigendian.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
            "examples_overlay.dcm",
            "MR_truncated.dcm",
        ),
    ),
    "images2d/nm": ("pydicom", "data/test_files", ("JPEG2000.dcm",)),
    "images2d/us": (
        "pydicom",
        "data/test_files",
        ("examples_rgb_color.dcm", "examples_palette.dcm", "examples_jpeg2k.dcm", "examples_ybr_color.dcm"),
    ),
    "images2d/retina": ("skimage", "data", ("retina.jpg", "microaneurysms.png")),
    "images2d/microscopy": ("skimage", "data", ("ihc.png", "cell.png")),
    "volumes/ct": ("pydicom", "data/test_files/dicomdirtests", ("77654033/CT2", "98892001/CT5N")),
    "volumes/mr": ("pydicom", "data/test_files/dicomdirtests", ("98892003/MR700",)),
    "volumes/mr/nibabel": (
        "nibabel",
        "tests/data",
        ("anatomical.nii", "functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "reoriented_anat_moved.nii"),
    ),
    "volumes/mr/nilearn": ("nilearn", "datasets/data", (TEMPLATE.rsplit("/", 1)[-1],)),
}
#: Where to get a package that is not installed.
EXTRAS = {"nilearn": "demo", "skimage": "demo"}


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """One file of a wheel and where it goes below the root."""

    source: Path
    target: str


def _folder(package: str) -> Path:
    """The folder of an installed package, without importing it.

    Raises:
        UsageError: if it is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        extra = f"crossdim[{EXTRAS[package]}]" if package in EXTRAS else "crossdim"
        raise UsageError(f"{package}, whose sample images are wanted, is not installed. pip install '{extra}'")
    return Path(spec.submodule_search_locations[0])


def list_carried_files() -> Iterator[CarriedFile]:
    """Every sample file; what another version of a package no longer carries is said and left out."""
    for target, (package, inside, names) in CARRIED.items():
        for name in names:
            source = _folder(package) / inside / name
            if source.is_dir():  # a series: one folder, one volume
                for part in sorted(path for path in source.iterdir() if path.is_file()):
                    yield CarriedFile(part, f"{target}/{source.name}/{part.name}.dcm")
            elif source.is_file():
                yield CarriedFile(source, f"{target}/{source.name}")
            else:
                logger.warning("this version of %s carries no %s; left out", package, name)


def _template_slices() -> Iterator[tuple[str, bytes]]:
    """Axial slices of the MNI152 template as PNG: front of the head up, the left side of the body on the left."""
    image: Any = nib.load(_folder("nilearn") / TEMPLATE)  # a union of formats; this one is NIfTI
    volume = np.asarray(image.dataobj)
    brightest = float(volume.max())
    for z in SLICES:
        pixels = np.rint(volume[:, ::-1, z].T / brightest * 255).astype(np.uint8)
        yield f"images2d/mr/template-z{z:03d}.png", png_bytes(pixels)


def write_sample_images(root: Path) -> int:
    """Copy the sample images into ``<root>/images2d/<kind>`` and ``<root>/volumes/<modality>``.

    Returns:
        How many files were written, the two broken ones included.

    Raises:
        UsageError: if a package that carries them is not installed.
    """
    wanted = [(carried.target, carried.source.read_bytes()) for carried in list_carried_files()]
    wanted += _template_slices()
    template = (_folder("nilearn") / TEMPLATE).read_bytes()
    wanted.append((BROKEN_VOLUME, template[: len(template) // 2]))
    for target, data in wanted:
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return len(wanted)
