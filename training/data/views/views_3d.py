"""Views of a volume: plans, and their voxels by NumPy and SciPy. V views, (D, H, W) voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np
from scipy import ndimage

from crossdim.storage_schema.sample import Array
from crossdim.training.data.views.boxes import Boxes, Reals, Side3
from crossdim.training.data.views.resize import resize_box
from crossdim.training.data.views.source import Floats, normalise
from crossdim.training.data.views.views_2d import T

#: Largest deviation of the blur along an axis, voxels, and of the noise, unit range, in views of the reference side.
BLUR_SIGMA, NOISE = 2.0, 0.25
#: Size of the patches that are swapped in views of the reference side, (D, H, W); code: PCRLv2 data.py, (8, 4, 4) as (x, y, z).
SWAP_PATCH: Side3 = (4, 4, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where V views lie in the volume.

    Attributes:
        boxes: of the volume; they are resized to the side of a view, then rotated and scaled about their centres.
        angles_deg: (V, 3) about each axis.
        scales: (V, 3) along each axis.
        flip: (V,) whether left and right are exchanged. Depth and rows never are.
    """

    boxes: Boxes
    angles_deg: Reals
    scales: Reals
    flip: Array

    def affine(self, side: Side3) -> Reals:
        """(V, 3, 4): maps voxel (d, h, w, 1) of a view of ``side`` voxels to a voxel of its box resized to ``side``.

        Angles are those of the volume, whatever the shape of a resized voxel.
        """
        step = self.boxes.size / side
        matrix = rotation(self.angles_deg) * (step * self.scales)[:, None, :] / step[:, :, None]
        matrix[:, :, 2] *= np.where(self.flip, -1, 1)[:, None]
        centre = (np.asarray(side) - 1) / 2
        return np.concatenate([matrix, (centre - matrix @ centre)[:, :, None]], axis=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Corruption(Generic[T]):
    """How V views are corrupted.

    Attributes:
        blur_sigma: (V, 3) voxels of the view.
        noise_deviation: (V,) in unit range.
        noise_seed: () one seed for the noise of all views.
        log_gamma: (V,) natural logarithm of the exponent.
        swaps: (V, times, 2, 3) first voxels of the pairs of patches that are swapped, one pair after the other.
    """

    blur_sigma: T
    noise_deviation: T
    noise_seed: T
    log_gamma: T
    swaps: T


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan3D:
    """The random decisions for V views of one volume."""

    placement: Placement
    corruption: Corruption[Array]


def draw_plan_3d(boxes: Boxes, side: Side3, reference: Side3, swaps: int, rng: np.random.Generator) -> Plan3D:
    """Draw the plan of views whose boxes are given.

    Rotation by up to 10 degrees about each axis, scale 0.9 .. 1.1, a left-right flip with probability 1/2; blur, noise and
    gamma always (TorchIO's defaults, as PCRLv2 uses them).

    Blur and swapped patches are in proportion to the side of a view, and noise to the square root of its voxels, so that a part
    of the body is distorted alike in small and large views (ours: the published sizes are for the published sides).

    Args:
        boxes: of V views.
        side: of a view, voxels (D, H, W).
        reference: the side for which the distortions were published.
        swaps: pairs of patches that are swapped.
        rng: source of the draws.

    Returns:
        The plan of the V views.
    """
    count = len(boxes.start)
    placement = Placement(
        boxes=boxes,
        angles_deg=rng.uniform(-10, 10, (count, 3)),
        scales=rng.uniform(0.9, 1.1, (count, 3)),
        flip=rng.random(count) < 0.5,
    )
    relative = np.asarray(side) / reference
    corruption = Corruption(
        blur_sigma=rng.uniform(0, BLUR_SIGMA, (count, 3)) * relative,
        noise_deviation=rng.uniform(0, NOISE, count) * np.sqrt(relative.prod()),
        noise_seed=np.asarray(rng.integers(2**63 - 1)),
        log_gamma=rng.uniform(-0.3, 0.3, count),
        swaps=_draw_patch_starts(side, swap_patch(side, reference), (count, swaps, 2), rng),
    )
    return Plan3D(placement=placement, corruption=corruption)


def swap_patch(side: Side3, reference: Side3) -> Side3:
    """Size of the patches that are swapped in a view, voxels (D, H, W).

    Args:
        side: of the view, voxels (D, H, W).
        reference: the side for which :data:`SWAP_PATCH` is the size.

    Returns:
        At least one voxel along each axis.
    """
    d, h, w = (max(1, round(n * s / r)) for n, s, r in zip(SWAP_PATCH, side, reference, strict=True))
    return d, h, w


def _draw_patch_starts(side: Side3, patch: Side3, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """First voxels of patches inside a view, of the given shape before the axis of coordinates."""
    num_starts = [max(1, whole - part + 1) for whole, part in zip(side, patch, strict=True)]
    return rng.integers(0, num_starts, (*shape, 3))


def rotation(angles_deg: Reals) -> Reals:
    """Rotation matrices (..., 3, 3) about the three axes, applied in order, from (..., 3) angles in degrees."""
    matrix = np.broadcast_to(np.eye(3), (*angles_deg.shape, 3))
    for axis in range(3):
        i, j = [k for k in range(3) if k != axis]
        cosine, sine = np.cos(np.deg2rad(angles_deg[..., axis])), np.sin(np.deg2rad(angles_deg[..., axis]))
        turn = np.broadcast_to(np.eye(3), matrix.shape).copy()
        turn[..., i, i] = turn[..., j, j] = cosine
        turn[..., i, j], turn[..., j, i] = -sine, sine
        matrix = turn @ matrix
    return matrix


def resample(box_DHW: Floats, affine: Reals, side: Side3) -> Floats:
    """A view of a resized box, by linear interpolation; outside of the box it is the least value of the box, as in TorchIO.

    A voxel is outside if its centre is outside of all voxels of the box (ITK's rule); half a voxel beyond the outermost centres,
    these voxels extend. Equals ``scipy.ndimage.affine_transform`` of order 1 inside, as eight gathers for all voxels at once: 2.4
    times as fast.

    Args:
        box_DHW: unit range, contiguous.
        affine: (3, 4), voxel of the view to voxel of the box.
        side: of the view, voxels (D, H, W).

    Returns:
        (*side,) float32.
    """
    flat, (_, height, width) = box_DHW.reshape(-1), box_DHW.shape
    first = np.zeros(side, np.intp)
    inside = np.ones(side, bool)
    parts = []
    for row, length, step in zip(affine, box_DHW.shape, (height * width, width, 1), strict=True):
        place = _coordinates_along(row, side)
        inside &= (place >= -0.5) & (place <= length - 0.5)
        np.clip(place, 0, length - 1, out=place)
        voxel = np.minimum(place.astype(np.int32), max(0, length - 2))
        parts.append(np.subtract(place, voxel, out=place))
        first += voxel * np.int32(step)
    z, y, x = parts

    def row_at(offset: int) -> Floats:
        # A neighbour beyond the last voxel has weight 0: clipping its index saves a check of every other.
        one, two = (flat.take(first + (offset + step), mode="clip") for step in (0, 1))
        return _interpolate(one, two, x)

    near = _interpolate(row_at(0), row_at(width), y)
    far = _interpolate(row_at(height * width), row_at(height * width + width), y)
    return np.asarray(np.where(inside, _interpolate(near, far, z), box_DHW.min()))


def _coordinates_along(row: Reals, side: Side3) -> Floats:
    """Coordinates of the voxels of a view along one axis of the volume, from its row of the affine map."""
    d, h, w = (np.arange(n) for n in side)
    plane = row[0] * d[:, None, None] + row[1] * h[:, None] + row[3]
    return np.asarray(plane + row[2] * w, np.float32)


def _interpolate(one: Floats, two: Floats, part: Floats) -> Floats:
    """``one`` and ``two`` mixed by ``part``; ``two`` is overwritten."""
    two -= one
    two *= part
    two += one
    return two


def swap_patches(volume_DHW: Floats, swaps: Array, patch: Side3) -> Floats:
    """Swap pairs of small patches, one pair after the other (TorchIO's RandomSwap).

    Args:
        volume_DHW: left as it is.
        swaps: (times, 2, 3) first voxels of both patches.
        patch: size of the patches, voxels (D, H, W).

    Returns:
        (D, H, W), a copy with swapped patches.
    """
    volume_DHW = volume_DHW.copy()
    for first, second in swaps:
        a = tuple(slice(s, s + n) for s, n in zip(first, patch, strict=True))
        b = tuple(slice(s, s + n) for s, n in zip(second, patch, strict=True))
        volume_DHW[a], volume_DHW[b] = volume_DHW[b].copy(), volume_DHW[a].copy()
    return volume_DHW


def corrupt(views_VDHW: Floats, corruption: Corruption[Array], reference: Side3, noise_VDHW: Floats | None = None) -> Floats:
    """Blur, noise, gamma, swaps and normalisation of every view; all of them always, as in PCRLv2.

    Args:
        views_VDHW: clean views.
        corruption: the random decisions.
        reference: the side for which the distortions were published, voxels (D, H, W).
        noise_VDHW: standard normal numbers; None draws them from the plan's seed, in float32.

    Returns:
        (V, D, H, W), each view with mean 0 and deviation 1.
    """
    if noise_VDHW is None:
        noise_VDHW = np.random.default_rng(int(corruption.noise_seed)).standard_normal(views_VDHW.shape, np.float32)
    _, depth, height, width = views_VDHW.shape
    patch = swap_patch((depth, height, width), reference)
    corrupted = []
    for number, view in enumerate(views_VDHW):
        blurred = ndimage.gaussian_filter(view, corruption.blur_sigma[number])
        noisy = blurred + noise_VDHW[number] * np.float32(corruption.noise_deviation[number])
        # Noise makes values negative, for which a power is undefined: the sign is kept, as TorchIO does.
        bent = np.copysign(np.abs(noisy) ** np.exp(np.float32(corruption.log_gamma[number])), noisy)
        corrupted.append(normalise(swap_patches(bent, corruption.swaps[number], patch)))
    return np.stack(corrupted)


def place_views(volume_DHW: Floats, placement: Placement, side: Side3) -> Floats:
    """Cut, resize, rotate, scale and flip the views of a volume.

    Args:
        volume_DHW: unit range.
        placement: of V views.
        side: of a view, voxels (D, H, W).

    Returns:
        (V, D, H, W), unit range.
    """
    boxes = zip(placement.boxes.start, placement.boxes.size, strict=True)
    resized = (resize_box(volume_DHW, start, size, side) for start, size in boxes)
    return np.stack([resample(box, affine, side) for box, affine in zip(resized, placement.affine(side), strict=True)])


def make_views_3d(volume_DHW: Floats, plan: Plan3D, side: Side3, reference: Side3) -> tuple[Floats, Floats]:
    """Render the views of a plan.

    Args:
        volume_DHW: unit range.
        plan: of V views.
        side: of a view, voxels (D, H, W).
        reference: the side for which the distortions were published, voxels (D, H, W).

    Returns:
        Clean and corrupted views, (V, D, H, W) each; corrupted ones are normalised.
    """
    clean = place_views(volume_DHW, plan.placement, side)
    return clean, corrupt(clean, plan.corruption, reference)
