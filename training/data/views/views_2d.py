"""Views of an image: plans, and their pixels by NumPy and Pillow. V views, (H, W) pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from crossdim.storage_schema.sample import Array
from crossdim.training.data.views.source import Floats, normalise

#: Type of a plan's fields: NumPy arrays when it is drawn, tensors with a batch axis in front when it is rendered.
T = TypeVar("T")
#: Range of the blur's deviation, pixels of a view of the reference side; half of the views are blurred.
BLUR_SIGMA = (0.1, 2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan2D(Generic[T]):
    """The random decisions for V views of one image.

    Attributes:
        edges: (V, 4) float32, left, top, right and bottom of the rectangle in pixels, as Pillow takes them.
        angle_deg: (V,) counter-clockwise.
        flip: (V,) whether the view is flipped left to right after the rotation.
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


def draw_plan_2d(
    shape_HW: tuple[int, int],
    rng: np.random.Generator,
    *,
    count: int,
    side: int,
    reference: int,
    area: tuple[float, float],
    holes: int,
) -> Plan2D[Array]:
    """Draw the plan of several views of an image.

    Rotation by up to 10 degrees either way, a flip with probability 1/2, blur with probability 1/2, brightness and contrast by
    0.6 .. 1.4. PCRLv2's grayscale, saturation and hue have no effect on one channel and are left out. The blur is in proportion
    to the side of a view (ours), so that it leaves as much of a texture in small views as in those it was published for.

    Args:
        shape_HW: of the image, pixels.
        rng: source of the draws.
        count: number of views.
        side: of a view, pixels.
        reference: the side for which the blur was published, pixels.
        area: smallest and largest fraction of the image that a rectangle covers; its aspect ratio is 3/4 .. 4/3.
        holes: cut-out squares of each view.

    Returns:
        The plan of V = ``count`` views.
    """
    edges = _draw_rectangles(shape_HW, rng, count, area)
    return Plan2D(
        edges=edges,
        angle_deg=rng.uniform(-10, 10, count),
        flip=rng.random(count) < 0.5,
        blur_sigma=np.where(rng.random(count) < 0.5, rng.uniform(*BLUR_SIGMA, count) * (side / reference), 0),
        brightness=rng.uniform(0.6, 1.4, count),
        contrast=rng.uniform(0.6, 1.4, count),
        holes=rng.integers(0, side, (count, holes, 2)),
    )


def _draw_rectangles(shape_HW: tuple[int, int], rng: np.random.Generator, count: int, area: tuple[float, float]) -> Floats:
    height, width = shape_HW
    scale, aspect = rng.uniform(*area, count), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), count))
    box_h = np.minimum(height, np.sqrt(scale * height * width / aspect))
    box_w = np.minimum(width, np.sqrt(scale * height * width * aspect))
    top, left = rng.uniform(0, height - box_h), rng.uniform(0, width - box_w)
    return np.stack([left, top, left + box_w, top + box_h], axis=1).astype(np.float32)


def random_resized_crop(image_HW: Floats, rng: np.random.Generator, side: int, area: tuple[float, float]) -> Floats:
    """A random rectangle of the image, resized to a square, for methods that distort nothing else.

    Args:
        image_HW: unit range.
        rng: source of the draw.
        side: of the result, pixels.
        area: smallest and largest fraction of the image that is covered.

    Returns:
        (side, side).
    """
    shape_HW = (image_HW.shape[0], image_HW.shape[1])
    return crop_and_resize(image_HW, _draw_rectangles(shape_HW, rng, 1, area)[0], side)


def crop_and_resize(image_HW: Floats, edges: Floats, side: int) -> Floats:
    """Crop a rectangle from an image and resize it to a square; bilinear with antialiasing.

    Args:
        image_HW: (H, W), any range.
        edges: (4,), left, top, right and bottom, pixels.
        side: S, of the result, pixels.

    Returns:
        (S, S), float32.
    """
    left, top, right, bottom = (float(edge) for edge in edges)
    return np.asarray(Image.fromarray(image_HW).resize((side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def rotate_and_flip(image_HW: Floats, angle_deg: float, flip: bool) -> Floats:
    """Rotate an image about its centre, then flip it left to right.

    Args:
        image_HW: (H, W), unit range.
        angle_deg: counter-clockwise; bilinear, black outside of the image.
        flip: whether it is flipped.

    Returns:
        (H, W).
    """
    image = np.asarray(Image.fromarray(image_HW).rotate(angle_deg, Image.Resampling.BILINEAR))
    return image[:, ::-1] if flip else image


def adjust_photometry(image_HW: Floats, blur_sigma: float, brightness: float, contrast: float) -> Floats:
    """Blur an image, then change brightness and contrast around the mean; clipped to unit range after each of the last two.

    Args:
        image_HW: unit range.
        blur_sigma: pixels; 0 is no blur.
        brightness: factor.
        contrast: factor around the mean.

    Returns:
        (H, W), float32.
    """
    if blur_sigma:
        image_HW = ndimage.gaussian_filter(image_HW, blur_sigma)
    image_HW = np.clip(image_HW * np.float32(brightness), 0, 1)
    mean = image_HW.mean()
    return np.asarray(np.clip((image_HW - mean) * np.float32(contrast) + mean, 0, 1), np.float32)


def cut_out(image_HW: Floats, holes: npt.NDArray[np.int64], side: int) -> Floats:
    """Set squares to zero, which is the mean of a normalised image.

    Args:
        image_HW: left as it is.
        holes: (K, 2) row and column of the centres.
        side: of the squares, pixels; clipped at the border.

    Returns:
        (H, W), a copy with holes.
    """
    image_HW = image_HW.copy()
    for row, column in holes:
        top, left = max(0, row - side // 2), max(0, column - side // 2)
        image_HW[top : row + side // 2, left : column + side // 2] = 0
    return image_HW


def make_views_2d(image_HW: Floats, plan: Plan2D[Array], side: int, hole_side: int) -> tuple[Floats, Floats]:
    """Render the views of a plan.

    Args:
        image_HW: unit range.
        plan: of V views.
        side: of a view, pixels.
        hole_side: of cut-out squares, pixels.

    Returns:
        Clean and corrupted views, (V, side, side) each. Corrupted ones are normalised, then cut out, so that holes are the mean.
    """
    places = zip(plan.edges, plan.angle_deg, plan.flip, strict=True)
    clean = [rotate_and_flip(crop_and_resize(image_HW, edges, side), angle, flip) for edges, angle, flip in places]
    light = zip(clean, plan.blur_sigma, plan.brightness, plan.contrast, plan.holes, strict=True)
    corrupted = [cut_out(normalise(adjust_photometry(one, *factors)), holes, hole_side) for one, *factors, holes in light]
    return np.stack(clean), np.stack(corrupted)
