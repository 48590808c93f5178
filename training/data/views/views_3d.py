"""Views of a volume: plans, and their voxels by NumPy and SciPy. V views, (D, H, W) voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

import numpy as np
from scipy import ndimage

from crossdim.storage_schema.sample import Array
from crossdim.training.data.views.boxes import Boxes, Reals, Side3
from crossdim.training.data.views.source import Floats, normalise
from crossdim.training.data.views.views_2d import T

#: Largest deviation of the blur along an axis, voxels.
BLUR_SIGMA = 2.0
#: Size of the patches that are swapped, (D, H, W); code: PCRLv2 data.py, there (8, 4, 4) as (x, y, z).
SWAP_PATCH: Side3 = (4, 4, 8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where V views lie in the volume.

    Attributes:
        boxes: of the volume, before they are rotated and scaled about their centres.
        angles_deg: (V, 3) about each axis.
        scales: (V, 3) along each axis.
        flip: (V,) whether left and right are exchanged. Depth and rows never are.
    """

    boxes: Boxes
    angles_deg: Reals
    scales: Reals
    flip: Array

    def affine(self, side: Side3) -> Reals:
        """(V, 3, 4): maps voxel (d, h, w, 1) of a view of ``side`` voxels to coordinates in the volume, in voxels."""
        step = self.boxes.size / side * self.scales
        matrix = rotation(self.angles_deg) * step[:, None, :]
        matrix[:, :, 2] *= np.where(self.flip, -1, 1)[:, None]
        centre = self.boxes.start + (self.boxes.size - 1) / 2
        offset = centre - matrix @ ((np.asarray(side) - 1) / 2)
        return np.concatenate([matrix, offset[:, :, None]], axis=2)


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


def draw_plan_3d(boxes: Boxes, side: Side3, swaps: int, rng: np.random.Generator) -> Plan3D:
    """Draw the plan of views whose boxes are given.

    Rotation by up to 10 degrees about each axis, scale 0.9 .. 1.1, a left-right flip with probability 1/2; blur, noise and
    gamma always (TorchIO's defaults, as PCRLv2 uses them).

    Args:
        boxes: of V views.
        side: of a view, voxels (D, H, W).
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
    corruption = Corruption(
        blur_sigma=rng.uniform(0, BLUR_SIGMA, (count, 3)),
        noise_deviation=rng.uniform(0, 0.25, count),
        noise_seed=np.asarray(rng.integers(2**63 - 1)),
        log_gamma=rng.uniform(-0.3, 0.3, count),
        swaps=_draw_patch_starts(side, (count, swaps, 2), rng),
    )
    return Plan3D(placement=placement, corruption=corruption)


def _draw_patch_starts(side: Side3, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """First voxels of patches inside a view, of the given shape before the axis of coordinates."""
    room = [max(1, whole - patch + 1) for whole, patch in zip(side, SWAP_PATCH, strict=True)]
    return rng.integers(0, room, (*shape, 3))


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


def resample(volume_DHW: Floats, affine: Reals, side: Side3) -> Floats:
    """A view of a volume, in one linear interpolation; 0 (air) beyond the centres of the outermost voxels.

    Equals ``scipy.ndimage.affine_transform`` of order 1, as eight gathers for all voxels at once: 2.4 times as fast.

    Args:
        volume_DHW: unit range.
        affine: (3, 4), voxel of the view to coordinates in the volume.
        side: of the view, voxels (D, H, W).

    Returns:
        (*side,) float32.
    """
    if not volume_DHW.flags.c_contiguous:  # a part of a larger one: only the box that is read is made contiguous
        volume_DHW, affine = _contiguous_box(volume_DHW, affine, side)
    flat, (_, height, width) = volume_DHW.reshape(-1), volume_DHW.shape
    first = np.zeros(side, np.intp)
    inside = np.ones(side, bool)
    parts = []
    for row, length, step in zip(affine, volume_DHW.shape, (height * width, width, 1), strict=True):
        place = _coordinates_along(row, side)
        inside &= (place >= 0) & (place <= length - 1)
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
    return np.asarray(np.clip(_interpolate(near, far, z) * inside, 0, 1))


def _contiguous_box(volume_DHW: Floats, affine: Reals, side: Side3) -> tuple[Floats, Reals]:
    """The box of a volume that a view reads, with a margin of one voxel, as a contiguous array, and the affine map into it."""
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in side), indexing="ij"), axis=-1).reshape(-1, 3) @ affine[:, :3].T
    low = np.clip(np.floor(corners.min(axis=0) + affine[:, 3]) - 1, 0, np.array(volume_DHW.shape) - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + affine[:, 3]) + 2, low + 1, volume_DHW.shape).astype(int)
    box = volume_DHW[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return np.ascontiguousarray(box), np.concatenate([affine[:, :3], affine[:, 3:] - low[:, None]], axis=1)


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


def resample_box(volume_DHW: Floats, start: Side3, size: Side3, side: Side3) -> Floats:
    """Resample a box of a volume to ``side`` voxels, without rotation or flip.

    Args:
        volume_DHW: unit range.
        start: first voxel (D, H, W).
        size: voxels (D, H, W).
        side: of the result, voxels (D, H, W).

    Returns:
        ``side`` voxels (D, H, W), float32.
    """
    boxes = Boxes(start=np.asarray(start, float)[None], size=np.asarray(size, float)[None])
    plain = Placement(boxes=boxes, angles_deg=np.zeros((1, 3)), scales=np.ones((1, 3)), flip=np.zeros(1, bool))
    return resample(volume_DHW, plain.affine(side)[0], side)


def swap_patches(volume_DHW: Floats, swaps: Array) -> Floats:
    """Swap pairs of small patches, one pair after the other (TorchIO's RandomSwap).

    Args:
        volume_DHW: left as it is.
        swaps: (times, 2, 3) first voxels of both patches.

    Returns:
        (D, H, W), a copy with swapped patches.
    """
    volume_DHW = volume_DHW.copy()
    for first, second in swaps:
        a = tuple(slice(s, s + n) for s, n in zip(first, SWAP_PATCH, strict=True))
        b = tuple(slice(s, s + n) for s, n in zip(second, SWAP_PATCH, strict=True))
        volume_DHW[a], volume_DHW[b] = volume_DHW[b].copy(), volume_DHW[a].copy()
    return volume_DHW


def corrupt(views_VDHW: Floats, corruption: Corruption[Array], noise_VDHW: Floats | None = None) -> Floats:
    """Blur, noise, gamma, swaps and normalisation of every view; all of them always, as in PCRLv2.

    Args:
        views_VDHW: clean views.
        corruption: the random decisions.
        noise_VDHW: standard normal numbers; None draws them from the plan's seed, in float32.

    Returns:
        (V, D, H, W), each view with mean 0 and deviation 1.
    """
    if noise_VDHW is None:
        noise_VDHW = np.random.default_rng(int(corruption.noise_seed)).standard_normal(views_VDHW.shape, np.float32)
    corrupted = []
    for number, view in enumerate(views_VDHW):
        blurred = ndimage.gaussian_filter(view, corruption.blur_sigma[number])
        noisy = blurred + noise_VDHW[number] * np.float32(corruption.noise_deviation[number])
        # Noise makes values negative, for which a power is undefined: the sign is kept, as TorchIO does.
        bent = np.copysign(np.abs(noisy) ** np.exp(np.float32(corruption.log_gamma[number])), noisy)
        corrupted.append(normalise(swap_patches(bent, corruption.swaps[number])))
    return np.stack(corrupted)


def make_views_3d(volume_DHW: Floats, plan: Plan3D, side: Side3) -> tuple[Floats, Floats]:
    """Render the views of a plan.

    Args:
        volume_DHW: unit range.
        plan: of V views.
        side: of a view, voxels (D, H, W).

    Returns:
        Clean and corrupted views, (V, D, H, W) each; corrupted ones are normalised.
    """
    clean = np.stack([resample(volume_DHW, affine, side) for affine in plan.placement.affine(side)])
    return clean, corrupt(clean, plan.corruption)
