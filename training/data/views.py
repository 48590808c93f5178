"""Views: crops and distortions of one sample, as functions of an array and a generator.

The tables are PCRLv2's (RL4M/PCRLv2: data.py, utils.py, luna_preprocess.py, datasets/lunaDataset.py); what we changed is
said where it is. Arrays here are float32 in unit range, (H, W) or (D, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from storage_schema.errors import GeometryError, RunError
from storage_schema.pseudo3d import Pseudo3D, fold
from storage_schema.sample import Sample
from storage_schema.vocabulary import Presentation

Floats = npt.NDArray[np.float32]
Side3 = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A box of a volume: first voxel and size along (D, H, W); fractions are allowed."""

    start: tuple[float, float, float]
    size: tuple[float, float, float]


def normalised(array: Floats) -> Floats:
    """Zero mean, unit deviation; a constant array becomes zeros."""
    deviation = float(array.std())
    return np.asarray((array - array.mean()) / (deviation if deviation > 1e-6 else 1.0), np.float32)


# ---- 2D ----------------------------------------------------------------------------------------------------------


def image_of(sample: Sample, spec: Pseudo3D) -> Floats:
    """The image behind a sample, (H, W) in unit range: folded back from pseudo-3D, or as it is."""
    if sample.presentation is Presentation.IMAGE:
        return np.asarray(sample.unit()[0])
    if not spec.reversible:
        raise RunError(
            f"sample {sample.key}: its pseudo-3D view (window {spec.window}, stride {spec.stride}) cannot be folded exactly"
        )
    height, width = sample.array.shape[2] * spec.window, sample.array.shape[3] * spec.window
    # Folded as it is stored, then scaled: bytes are moved and not floats.
    return sample.scaling.unit(fold(sample.array, spec, height, width)[0])


def crop_resized(image_HW: Floats, rng: np.random.Generator, side: int, area: tuple[float, float]) -> Floats:
    """A random rectangle of the image, resized to a square; bilinear with antialiasing.

    Args:
        image_HW: unit range.
        rng: source of chance.
        side: of the result, pixels.
        area: smallest and largest share of the image that the rectangle covers; aspect ratio is 3/4 .. 4/3.
    """
    height, width = image_HW.shape
    scale, aspect = rng.uniform(*area), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    box_h = min(height, np.sqrt(scale * height * width / aspect))
    box_w = min(width, np.sqrt(scale * height * width * aspect))
    top, left = rng.uniform(0, height - box_h), rng.uniform(0, width - box_w)
    box = (left, top, left + box_w, top + box_h)
    return np.asarray(Image.fromarray(image_HW).resize((side, side), Image.Resampling.BILINEAR, box=box))


def turned(image_HW: Floats, rng: np.random.Generator, degrees: float) -> Floats:
    """Rotation by up to ``degrees`` either way, then a left-right flip half of the time."""
    angle = rng.uniform(-degrees, degrees)
    image = np.asarray(Image.fromarray(image_HW).rotate(angle, Image.Resampling.BILINEAR))
    return image[:, ::-1] if rng.random() < 0.5 else image


def photometric(image_HW: Floats, rng: np.random.Generator) -> Floats:
    """Blur half of the time, then brightness and contrast by 0.6 .. 1.4; clipped to unit range.

    PCRLv2's grayscale, saturation and hue say nothing on one channel and are left out.
    """
    if rng.random() < 0.5:
        image_HW = ndimage.gaussian_filter(image_HW, rng.uniform(0.1, 2.0))
    brightness, contrast = rng.uniform(0.6, 1.4, size=2)
    image_HW = np.clip(image_HW * brightness, 0, 1)
    return np.asarray(np.clip((image_HW - image_HW.mean()) * contrast + image_HW.mean(), 0, 1), np.float32)


def cut_out(image_HW: Floats, rng: np.random.Generator, holes: int, side: int) -> Floats:
    """Square holes of zeros, clipped at the border; on a normalised image zero is the mean."""
    image_HW = image_HW.copy()
    height, width = image_HW.shape
    for row, column in zip(rng.integers(0, height, holes), rng.integers(0, width, holes), strict=True):
        top, left = max(0, row - side // 2), max(0, column - side // 2)
        image_HW[top : row + side // 2, left : column + side // 2] = 0
    return image_HW


# ---- 3D ----------------------------------------------------------------------------------------------------------


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    inner = 1.0
    for start_a, size_a, start_b, size_b in zip(a.start, a.size, b.start, b.size, strict=True):
        inner *= max(0.0, min(start_a + size_a, start_b + size_b) - max(start_a, start_b))
    return inner / (float(np.prod(a.size)) + float(np.prod(b.size)) - inner)


def _placed(size: Side3, low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], rng: np.random.Generator) -> Box:
    start = rng.uniform(low, np.maximum(low, high - np.asarray(size)))
    return Box(start=(start[0], start[1], start[2]), size=size)


def box_pair(shape_DHW: Side3, sizes: Sequence[Side3], rng: np.random.Generator, min_overlap: float = 0.3) -> tuple[Box, Box]:
    """Two boxes inside a volume whose intersection over union is above ``min_overlap``.

    Sizes are drawn again with the places: for some pairs of sizes no place can satisfy the bound.

    Raises:
        GeometryError: if no pair was found in 1000 draws, which means that the sizes do not allow one.
    """
    low, high = np.zeros(3), np.asarray(shape_DHW, float)
    fitting = [size for size in sizes if all(s <= n for s, n in zip(size, shape_DHW, strict=True))]
    for _ in range(1000):
        if not fitting:
            break
        a, b = (_placed(fitting[rng.integers(len(fitting))], low, high, rng) for _ in range(2))
        if overlap(a, b) > min_overlap:
            return a, b
    raise GeometryError(f"no two boxes of sizes {list(sizes)} overlap by {min_overlap} inside a volume of {shape_DHW}")


def sub_boxes(a: Box, b: Box, shape_DHW: Side3, sizes: Sequence[Side3], count: int, rng: np.random.Generator) -> list[Box]:
    """Boxes inside the common hull of two, which is enlarged by 3 voxels; clamped to the volume, never stretched."""
    low = np.maximum(0, np.minimum(a.start, b.start) - 3)
    ends = np.maximum(np.add(a.start, a.size), np.add(b.start, b.size))
    high = np.minimum(shape_DHW, ends + 3)
    fitting = [size for size in sizes if all(s <= h - w for s, h, w in zip(size, high, low, strict=True))]
    return [_placed(fitting[rng.integers(len(fitting))], low, high, rng) for _ in range(count)]


def rotation(angles_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """3 x 3 rotation about the three axes, applied in order."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def box_resampled(volume_DHW: Floats, box: Box, side: Side3, rng: np.random.Generator | None) -> Floats:
    """A box of a volume on a grid of ``side`` voxels, turned, scaled and flipped at random, in one interpolation.

    Rotation by up to 10 degrees about each axis, scale 0.9 .. 1.1, left-right flip half of the time (TorchIO's defaults,
    as PCRLv2 uses them); ``rng`` None takes the box as it is. Linear; air (0) beyond the volume.
    """
    step = np.asarray(box.size) / np.asarray(side)
    matrix = np.diag(step)
    if rng is not None:
        matrix = rotation(rng.uniform(-10, 10, 3)) @ np.diag(rng.uniform(0.9, 1.1, 3)) @ matrix
        if rng.random() < 0.5:
            matrix[:, 2] *= -1
    centre = np.asarray(box.start) + (np.asarray(box.size) - 1) / 2
    offset = centre - matrix @ ((np.asarray(side) - 1) / 2)
    result = ndimage.affine_transform(volume_DHW, matrix, offset, output_shape=side, order=1, output=np.float32)
    return np.asarray(np.clip(result, 0, 1))


def swapped(volume_DHW: Floats, rng: np.random.Generator, patch: Side3, times: int) -> Floats:
    """Pairs of small patches exchanged in place (TorchIO's RandomSwap)."""
    volume_DHW = volume_DHW.copy()
    room = np.asarray(volume_DHW.shape) - np.asarray(patch) + 1
    for first, second in rng.integers(0, room, (times, 2, 3)):
        a = tuple(slice(s, s + n) for s, n in zip(first, patch, strict=True))
        b = tuple(slice(s, s + n) for s, n in zip(second, patch, strict=True))
        volume_DHW[a], volume_DHW[b] = volume_DHW[b].copy(), volume_DHW[a].copy()
    return volume_DHW


def corrupted(volume_DHW: Floats, rng: np.random.Generator, swaps: int) -> Floats:
    """Blur, noise, gamma, for global views patch swaps; then normalised. Every one always, as in PCRLv2."""
    volume_DHW = ndimage.gaussian_filter(volume_DHW, rng.uniform(0, 2, 3))
    volume_DHW = volume_DHW + rng.normal(0, rng.uniform(0, 0.25), volume_DHW.shape).astype(np.float32)
    # Noise makes values negative, for which a power is undefined: the sign is kept, as TorchIO does.
    volume_DHW = np.sign(volume_DHW) * np.abs(volume_DHW) ** np.exp(rng.uniform(-0.3, 0.3))
    if swaps:
        volume_DHW = swapped(volume_DHW, rng, (4, 4, 8), swaps)
    return normalised(volume_DHW)
