"""Segmentation metrics: overlap of a predicted mask with the true one, and distances of their surfaces in mm.

A surface is the voxels of a mask that have a face neighbour outside of it, where everything beyond the image is outside;
distances are between centres of voxels. MONAI does the same without a spacing; with one it counts neighbourhoods instead,
so figures on anisotropic voxels differ a little from its own.

Conventions for empty masks (ours; BraTS penalises in the same way):

    truth, prediction   presence   Dice   distances
    both filled         found      as measured
    filled, empty       missed     0      diagonal of the image
    empty, filled       invented   0      diagonal of the image
    both empty          absent     1      0

Nothing is dropped as NaN, so missing a structure never improves a mean; see :func:`summary` for what a mean is over.
Axes: any number of spatial ones, (D, H, W) or (H, W).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from crossdim.storage_schema.errors import GeometryError, RunError

PERCENTILE = 95
FIGURES = ("dice", "hausdorff_mm", "hd95_mm", "hd95_pooled_mm", "assd_mm")

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]


class Presence(StrEnum):
    """Whether truth and prediction contain the structure."""

    FOUND = "found"
    MISSED = "missed"
    INVENTED = "invented"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Figures of one structure in one image.

    Attributes:
        presence: whether truth and prediction contain it.
        dice: twice the common voxels over the sum of both masks' voxels.
        hausdorff_mm: the largest distance of a point of either surface from the other.
        hd95_mm: the 95th percentile of the distances from one surface to the other, the larger of both directions: what most
            papers describe, and MONAI computes.
        hd95_pooled_mm: the 95th percentile of the distances of both directions together, as MedPy computes it.
        assd_mm: average symmetric surface distance: mean of the distances of both directions together.
    """

    presence: Presence
    dice: float
    hausdorff_mm: float
    hd95_mm: float
    hd95_pooled_mm: float
    assd_mm: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """Means over images that contain the structure in truth or prediction, and the number of images of each kind."""

    counts: dict[Presence, int]
    dice: float
    hausdorff_mm: float
    hd95_mm: float
    hd95_pooled_mm: float
    assd_mm: float


def compare_masks(predicted: Mask, true: Mask, spacing_mm: Sequence[float]) -> Agreement:
    """Compare two masks of one structure.

    Args:
        predicted: boolean, of any number of axes.
        true: the same shape.
        spacing_mm: distance of neighbouring voxels along each axis.

    Returns:
        Dice, and distances of the surfaces in mm; if only one mask is empty, each distance is the diagonal of the volume, if
        both are, 0.

    Raises:
        GeometryError: if masks are not boolean, shapes differ, or the spacing is not one positive length an axis.
    """
    _check(predicted, true, spacing_mm)
    diagonal_mm = math.hypot(*(size * step for size, step in zip(true.shape, spacing_mm, strict=True)))
    if not (predicted.any() and true.any()):
        return _compare_without_surfaces(predicted, true, diagonal_mm)
    to_true, to_predicted = surface_distances(predicted, true, spacing_mm)
    both = np.concatenate([to_true, to_predicted])
    return Agreement(
        presence=Presence.FOUND,
        dice=dice(predicted, true),
        hausdorff_mm=float(both.max()),
        hd95_mm=float(max(np.percentile(to_true, PERCENTILE), np.percentile(to_predicted, PERCENTILE))),
        hd95_pooled_mm=float(np.percentile(both, PERCENTILE)),
        assd_mm=float(both.mean()),
    )


def summary(agreements: Sequence[Agreement]) -> Summary:
    """Means over the images that contain the structure in truth or prediction.

    Images that are empty in both are counted but not averaged: many of them would make any model look good.

    Raises:
        RunError: if no image is left.
    """
    counts = Counter(a.presence for a in agreements)
    present = [a for a in agreements if a.presence != Presence.ABSENT]
    if not present:
        raise RunError(f"no image holds the structure, in truth or prediction; found {len(agreements)} images")
    means = {name: float(np.mean([getattr(a, name) for a in present])) for name in FIGURES}
    return Summary(counts={presence: counts[presence] for presence in Presence}, **means)


def dice(predicted: Mask, true: Mask) -> float:
    """Twice the common voxels over the sum of both masks' voxels; 1 for two empty masks.

    Args:
        predicted: boolean, any number of axes.
        true: the same shape.

    Returns:
        From 0 to 1.
    """
    total = int(np.count_nonzero(predicted)) + int(np.count_nonzero(true))
    return 2 * int(np.count_nonzero(predicted & true)) / total if total else 1.0


def surface_distances(predicted: Mask, true: Mask, spacing_mm: Sequence[float]) -> tuple[Distances, Distances]:
    """The distance of every surface voxel of either mask to the nearest one of the other.

    Args:
        predicted: boolean, not empty.
        true: the same shape, not empty.
        spacing_mm: distance of neighbouring voxels along each axis.

    Returns:
        Distances in mm, from predicted to true and from true to predicted.
    """
    # Both surfaces lie in the bounding box of both masks, so nothing outside of it changes a distance.
    box = ndimage.find_objects((predicted | true).astype(np.uint8))[0]
    predicted_edge, true_edge = _surface(predicted[box]), _surface(true[box])
    return _distances(predicted_edge, true_edge, spacing_mm), _distances(true_edge, predicted_edge, spacing_mm)


def _surface(mask: Mask) -> Mask:
    edge: Mask = mask & ~ndimage.binary_erosion(mask)
    return edge


def _distances(edge: Mask, other_edge: Mask, spacing_mm: Sequence[float]) -> Distances:
    nearest_mm = ndimage.distance_transform_edt(~other_edge, sampling=tuple(spacing_mm))
    return np.asarray(nearest_mm[edge], np.float64)


def _compare_without_surfaces(predicted: Mask, true: Mask, diagonal_mm: float) -> Agreement:
    """Figures if a mask is empty."""
    presence = Presence.MISSED if true.any() else Presence.INVENTED if predicted.any() else Presence.ABSENT
    charge_mm = 0.0 if presence == Presence.ABSENT else diagonal_mm
    charges = dict.fromkeys(FIGURES, charge_mm) | {"dice": dice(predicted, true)}
    return Agreement(presence=presence, **charges)


def _check(predicted: Mask, true: Mask, spacing_mm: Sequence[float]) -> None:
    boolean = predicted.dtype == true.dtype == np.bool_
    measured = len(spacing_mm) == true.ndim and all(0 < step < math.inf for step in spacing_mm)
    if not boolean or predicted.shape != true.shape or not true.size or not measured:
        raise GeometryError(
            f"expected two boolean masks of one shape and a positive spacing along each axis; found {predicted.dtype} "
            f"{predicted.shape}, {true.dtype} {true.shape} and {tuple(spacing_mm)} mm"
        )
