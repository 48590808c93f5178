"""Phantoms: generated, seeded, labelled images and CT volumes whose geometry is known exactly.

Every phantom draws from a generator of its own, keyed by seed, label and number, so asking for more of them changes none.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

ImageLabel = Literal["disc", "stripes", "rings"]
VolumeLabel = Literal["none", "sphere", "cube"]
IMAGE_LABELS: tuple[ImageLabel, ...] = get_args(ImageLabel)
VOLUME_LABELS: tuple[VolumeLabel, ...] = get_args(VolumeLabel)
Millimetres = tuple[float, float, float]
Offsets = list[npt.NDArray[np.float64]]

# nibabel has types for some of its functions only.
_NiftiImage: Any = nib.Nifti1Image
_orientations: Any = nib.orientations

AIR_HU = -1000.0
BODY_HU = 40.0
OBJECT_HU = 400.0
NOISE_HU = 12.0
#: Orders and directions in which scanners and converters leave the axes of a NIfTI file.
ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "ASL", "SRA")
#: Volumes are smaller than this along every axis, so that one box of 64 voxels at 2 mm holds a whole phantom.
LARGEST_MM = 128.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomImage:
    """A gray picture with one textured disc.

    Attributes:
        pixels_HW: uint8.
        label: the texture inside the disc.
        centre_yx: middle of the disc, in pixels.
        radius: of the disc, in pixels.
    """

    pixels_HW: npt.NDArray[np.uint8]
    label: ImageLabel
    centre_yx: tuple[float, float]
    radius: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PhantomVolume:
    """A CT volume: an ellipsoid of soft tissue in air, with a bright object in it or none.

    Attributes:
        voxels_XYZ: int16 HU, in the order and direction of ``orientation``, as in a NIfTI file.
        affine: 4 x 4, maps (i, j, k, 1) to (right, anterior, superior) mm.
        orientation: axis codes, such as ``LPS``.
        label: which object there is.
        body_centre_mm: middle of the ellipsoid, (right, anterior, superior).
        body_axes_mm: its semi-axes.
        object_centre_mm: middle of the object.
        object_size_mm: radius of the sphere, or half an edge of the cube of equal volume; 0 where there is none.
    """

    voxels_XYZ: npt.NDArray[np.int16]
    affine: npt.NDArray[np.float64]
    orientation: str
    label: VolumeLabel
    body_centre_mm: Millimetres
    body_axes_mm: Millimetres
    object_centre_mm: Millimetres
    object_size_mm: float


def _generator(seed: int, *words: int) -> np.random.Generator:
    return np.random.default_rng([seed, *words])


def _background(rng: np.random.Generator, y: npt.NDArray[np.float64], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A few long waves around middle gray, for coordinates from 0 to 1."""
    waves = np.full(np.broadcast_shapes(y.shape, x.shape), 90.0)
    for _ in range(3):
        fy, fx = rng.uniform(-1.2, 1.2, 2)
        waves += rng.uniform(6, 14) * np.cos(2 * np.pi * (fy * y + fx * x + rng.uniform()))
    return waves


def phantom_image(seed: int, label: ImageLabel, number: int) -> PhantomImage:
    """One phantom image; disc, stripes and rings differ in texture, not in place, size or contrast."""
    rng = _generator(seed, 2, IMAGE_LABELS.index(label), number)
    height, width = (int(side) for side in rng.integers(112, 241, 2))
    radius = float(min(height, width) * rng.uniform(0.2, 0.35))
    centre = tuple(float(rng.uniform(radius, side - 1 - radius)) for side in (height, width))
    y, x = np.ogrid[:height, :width]
    dy, dx = y - centre[0], x - centre[1]
    distance = np.hypot(dy, dx)
    period, angle, phase = rng.uniform(7, 12), rng.uniform(0, np.pi), rng.uniform()
    along = {"disc": None, "stripes": dy * np.sin(angle) + dx * np.cos(angle), "rings": distance}[label]
    texture = 0.5 if along is None else 0.5 + 0.5 * np.cos(2 * np.pi * (along / period + phase))
    pixels = _background(rng, y / height, x / width) + np.where(distance <= radius, 100.0 * texture, 0.0)
    pixels += rng.normal(0, 4, pixels.shape)
    return PhantomImage(
        pixels_HW=np.clip(np.rint(pixels), 0, 255).astype(np.uint8),
        label=label,
        centre_yx=(centre[0], centre[1]),
        radius=radius,
    )


def _ellipsoid(offsets_mm: Offsets, axes_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    x, y, z = (np.square(offset / axis) for offset, axis in zip(offsets_mm, axes_mm, strict=True))
    return np.asarray(x + y + z <= 1)


def _cube(offsets_mm: Offsets, half_mm: float) -> npt.NDArray[np.bool_]:
    x, y, z = (np.abs(offset) <= half_mm for offset in offsets_mm)
    return x & y & z


def phantom_volume(seed: int, label: VolumeLabel, number: int) -> PhantomVolume:
    """One phantom volume; sphere and cube have the same size and density, so their mean does not tell them apart."""
    rng = _generator(seed, 3, VOLUME_LABELS.index(label), number)
    spacing = np.array([*[rng.uniform(1.0, 1.6)] * 2, rng.uniform(1.6, 3.2)])
    extent = LARGEST_MM * rng.uniform((0.88, 0.75, 0.8), (0.97, 0.85, 0.95))
    shape = np.floor(extent / spacing).astype(int)
    corner = rng.uniform(-200, 200, 3)
    body_centre = corner + (shape - 1) * spacing / 2 + rng.uniform(-3, 3, 3)
    body_axes = extent * rng.uniform(0.36, 0.44, 3)
    direction = rng.normal(size=3)
    object_centre = body_centre + 0.35 * body_axes * direction / np.linalg.norm(direction) * rng.uniform(0.2, 1)
    radius = rng.uniform(11, 17)
    size = {"none": 0.0, "sphere": radius, "cube": radius * (4 * np.pi / 3) ** (1 / 3) / 2}[label]

    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    from_body, from_object = (
        [corner[a] + spacing[a] * axes[a] - centre[a] for a in range(3)] for centre in (body_centre, object_centre)
    )
    values = np.where(_ellipsoid(from_body, body_axes), BODY_HU, AIR_HU)
    if label == "sphere":
        values[_ellipsoid(from_object, np.full(3, size))] = OBJECT_HU
    elif label == "cube":
        values[_cube(from_object, size)] = OBJECT_HU
    values += rng.normal(0, NOISE_HU, values.shape)
    voxels = np.clip(np.rint(values), -1024, 3071).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = corner
    orientation = ORIENTATIONS[int(rng.integers(len(ORIENTATIONS)))]
    turned = _reorient(voxels, affine, orientation)
    return PhantomVolume(
        voxels_XYZ=np.asarray(turned.dataobj),
        affine=turned.affine,
        orientation=orientation,
        label=label,
        body_centre_mm=_triple(body_centre),
        body_axes_mm=_triple(body_axes),
        object_centre_mm=_triple(object_centre),
        object_size_mm=float(size),
    )


def _triple(values: npt.NDArray[np.float64]) -> Millimetres:
    x, y, z = (float(v) for v in values)
    return x, y, z


def _reorient(voxels_RAS: npt.NDArray[np.int16], affine: npt.NDArray[np.float64], codes: str) -> Any:
    """The same volume in the same world as a nibabel image, with its axes stored in another order and direction."""
    turn = _orientations.ornt_transform(_orientations.axcodes2ornt("RAS"), _orientations.axcodes2ornt(codes))
    return _NiftiImage(voxels_RAS, affine).as_reoriented(turn)


def png_bytes(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A picture (H, W) or (H, W, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def nifti_bytes(phantom: PhantomVolume) -> bytes:
    """A volume as .nii.gz; equal volumes are equal bytes."""
    image = _NiftiImage(phantom.voxels_XYZ, phantom.affine)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    return gzip.compress(image.to_bytes(), compresslevel=3, mtime=0)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_phantoms(root: Path, seed: int, *, images_per_label: int = 16, volumes_per_label: int = 8) -> int:
    """Write phantoms in folders by label: ``<root>/xray/<label>/phantom-03.png`` and ``<root>/ct/<label>/phantom-03.nii.gz``.

    Returns:
        How many files were written.
    """
    for label in IMAGE_LABELS:
        for number in range(images_per_label):
            pixels = phantom_image(seed, label, number).pixels_HW
            _write(root / "xray" / label / f"phantom-{number:02d}.png", png_bytes(pixels))
    for shape in VOLUME_LABELS:
        for number in range(volumes_per_label):
            _write(root / "ct" / shape / f"phantom-{number:02d}.nii.gz", nifti_bytes(phantom_volume(seed, shape, number)))
    return images_per_label * len(IMAGE_LABELS) + volumes_per_label * len(VOLUME_LABELS)
