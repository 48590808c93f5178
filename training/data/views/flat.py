"""Views of an image: the plan of chance, and its pixels by NumPy and Pillow. V views, (H, W) pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from crossdim.storage_schema.sample import Array
from crossdim.training.data.views.source import Floats, normalised

#: What holds the numbers of a plan: NumPy arrays where it is drawn, tensors with a batch axis in front where it is rendered.
T = TypeVar("T")
#: Range of the blur's deviation, pixels; a view in two is blurred.
BLUR_SIGMA = (0.1, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatPlan(Generic[T]):
    """What chance decided for V views of one image.

    Attributes:
        edges: (V, 4) float32, left, top, right and bottom of the rectangle in pixels, as Pillow takes them.
        angle_deg: (V,) counter-clockwise.
        flip: (V,) whether left and right are exchanged after the turn.
        blur_sigma: (V,) pixels of the view; 0 is no blur.
        brightness: (V,) factor.
        contrast: (V,) factor around the mean.
        holes: (V, K, 2) row and column of the centres of cut-out squares.
    """

    edges: T
    angle_deg: T
    flip: T
    blur_sigma: T
    brightness: T
    contrast: T
    holes: T


def draw_flat(
    shape_HW: tuple[int, int], rng: np.random.Generator, *, count: int, side: int, area: tuple[float, float], holes: int
) -> FlatPlan[Array]:
    """Draw the plan of ``count`` views of an image.

    Rectangles cover a share of the image within ``area`` with aspect ratio 3/4 .. 4/3; rotation by up to 10 degrees either
    way, a flip half of the time, blur half of the time, brightness and contrast by 0.6 .. 1.4. PCRLv2's grayscale,
    saturation and hue say nothing on one channel and are left out.
    """
    edges = _rectangles(shape_HW, rng, count, area)
    return FlatPlan(
        edges=edges,
        angle_deg=rng.uniform(-10, 10, count),
        flip=rng.random(count) < 0.5,
        blur_sigma=np.where(rng.random(count) < 0.5, rng.uniform(*BLUR_SIGMA, count), 0),
        brightness=rng.uniform(0.6, 1.4, count),
        contrast=rng.uniform(0.6, 1.4, count),
        holes=rng.integers(0, side, (count, holes, 2)),
    )


def _rectangles(shape_HW: tuple[int, int], rng: np.random.Generator, count: int, area: tuple[float, float]) -> Floats:
    height, width = shape_HW
    scale, aspect = rng.uniform(*area, count), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    box_h = np.minimum(height, np.sqrt(scale * height * width / aspect))
    box_w = np.minimum(width, np.sqrt(scale * height * width * aspect))
    top, left = rng.uniform(0, height - box_h), rng.uniform(0, width - box_w)
    return np.stack([left, top, left + box_w, top + box_h], axis=1).astype(np.float32)


def crop_resized(image_HW: Floats, rng: np.random.Generator, side: int, area: tuple[float, float]) -> Floats:
    """A random rectangle of the image, resized to a square: the one decision of methods that distort nothing."""
    shape_HW = (image_HW.shape[0], image_HW.shape[1])
    return cropped(image_HW, _rectangles(shape_HW, rng, 1, area)[0], side)


def cropped(image_HW: Floats, edges: Floats, side: int) -> Floats:
    """A rectangle of the image, resized to a square; bilinear with antialiasing."""
    left, top, right, bottom = (float(edge) for edge in edges)
    return np.asarray(Image.fromarray(image_HW).resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def turned(image_HW: Floats, angle_deg: float, flip: bool) -> Floats:
    """The image rotated about its centre, bilinear, black beyond the image; then flipped left to right if asked."""
    image = np.asarray(Image.fromarray(image_HW).rotate(angle_deg, Image.Resampling.BILINEAR))
    return image[:, ::-1] if flip else image


def photometric(image_HW: Floats, blur_sigma: float, brightness: float, contrast: float) -> Floats:
    """Blur, brightness, contrast around the mean; clipped to unit range after each of the last two."""
    if blur_sigma:
        image_HW = ndimage.gaussian_filter(image_HW, blur_sigma)
    image_HW = np.clip(image_HW * np.float32(brightness), 0, 1)
    mean = image_HW.mean()
    return np.asarray(np.clip((image_HW - mean) * np.float32(contrast) + mean, 0, 1), np.float32)


def cut_out(image_HW: Floats, holes: npt.NDArray[np.int64], side: int) -> Floats:
    """Square holes of zeros around the given centres, clipped at the border; on a normalised image zero is the mean."""
    image_HW = image_HW.copy()
    for row, column in holes:
        top, left = max(0, row - side // 2), max(0, column - side // 2)
        image_HW[top : row + side // 2, left : column + side // 2] = 0
    return image_HW


def flat_views(image_HW: Floats, plan: FlatPlan[Array], side: int, hole_side: int) -> tuple[Floats, Floats]:
    """Clean and distorted views of an image, (V, side, side) each; the distorted ones are normalised, then cut out.

    Cut-out comes after normalisation, so that holes are the mean.
    """
    places = zip(plan.edges, plan.angle_deg, plan.flip, strict=True)
    clean = [turned(cropped(image_HW, edges, side), angle, flip) for edges, angle, flip in places]
    light = zip(clean, plan.blur_sigma, plan.brightness, plan.contrast, plan.holes, strict=True)
    spoilt = [cut_out(normalised(photometric(one, *factors)), holes, hole_side) for one, *factors, holes in light]
    return np.stack(clean), np.stack(spoilt)
