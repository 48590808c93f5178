"""Resample volumes to cubic voxels of one size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import SimpleITK

from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import GeometryError, SampleError, UsageError, list_wrong_settings
from crossdim.storage_schema.sample import Array, Sample

ITK: Any = SimpleITK  # its wrappers are not annotated

#: Recorded: what lies beyond the outermost centres along an axis. Datasets without it took the nearest voxel along all axes.
BORDER = "constant along each axis"
#: A spacing within this share of the wanted one counts as equal; interpolating would only blur. Our choice.
SAME_SPACING = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class Resample:
    """The wanted voxel size. ``max_voxels`` is a limit: a header with wrong millimetres could ask for any amount of memory.

    Attributes:
        spacing_mm (mm): side of a voxel.
        max_voxels (voxels): largest volume after resampling; a header with wrong millimetres could ask for any amount of
            memory.
    """

    spacing_mm: float
    max_voxels: int = 2**29  # ours: 2 GiB of float32, four times that at the peak; 1000 x 1000 x 500 fits

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            spacing_mm=0 < self.spacing_mm < math.inf,
            max_voxels=self.max_voxels > 0,
        ):
            raise UsageError(f"resample needs a positive spacing_mm and max_voxels; found {found}")

    def is_same(self, spacing_mm: tuple[float, ...]) -> bool:
        """Whether a volume has this spacing already."""
        return all(abs(s / self.spacing_mm - 1) <= SAME_SPACING for s in spacing_mm)

    def check_extent(self, shape_DHW: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
        """Refuse a volume that would end as a line or a point: its lengths have another unit, or the recipe does not fit.

        Args:
            shape_DHW: of the volume, voxels.
            spacing_mm: of the volume, along the same axes.

        Raises:
            SampleError: rule ``too_small`` if less than two of its sides are longer than two voxels.
        """
        if self.is_same(spacing_mm):
            return
        sides = sorted(n * s for n, s in zip(shape_DHW, spacing_mm, strict=True))
        if sides[1] <= 2 * self.spacing_mm * (1 - SAME_SPACING):
            size = " x ".join(f"{side:.3g}" for side in sides)
            raise SampleError("too_small", f"the volume is {size} mm, which voxels of {self.spacing_mm} mm cannot show")

    def shape(self, shape_DHW: tuple[int, ...], spacing_mm: tuple[float, ...]) -> tuple[int, int, int]:
        """Shape after resampling: enough voxels to cover the old extent.

        Args:
            shape_DHW: of the volume, voxels.
            spacing_mm: of the volume, along the same axes.

        Returns:
            (D, H, W), in voxels of the new spacing.

        Raises:
            SampleError: rule ``too_large`` if that is more than the guard allows.
        """
        ends = [n * s / self.spacing_mm for n, s in zip(shape_DHW, spacing_mm, strict=True)]
        same = self.is_same(spacing_mm)
        # Half a percent of a voxel beyond the last whole one is rounding of the header, not anatomy.
        d, h, w = shape_DHW if same else (max(1, math.ceil(end - 0.005)) for end in ends)
        if d * h * w > self.max_voxels:
            raise SampleError(
                "too_large",
                f"{(d, h, w)} voxels of {self.spacing_mm} mm from spacing {spacing_mm}; the guard is {self.max_voxels:,}",
            )
        return d, h, w


def resample(sample: Sample, config: Resample) -> Sample:
    """Interpolate a volume linearly on cubic voxels that start at the same outer corner.

    Where voxels grow, a Gaussian is applied first, so that fine structure is blurred and not aliased. Beyond the outermost
    centres along an axis values stay as they are there, and are interpolated along the other axes as elsewhere.

    Source: width of the Gaussian from Cardoso et al., Scale factor point spread function matching (MICCAI 2015), as TorchIO.

    Args:
        sample: (1, D, H, W) float32, with spacing and affine.
        config: the wanted spacing.

    Returns:
        (1, D', H', W') float32.

    Raises:
        SampleError: rule ``too_large`` or ``too_small``.
    """
    if sample.affine is None or sample.spacing_mm is None:
        raise GeometryError(f"sample {sample.key}: a volume without affine cannot be resampled")
    config.check_extent(sample.array.shape[1:], sample.spacing_mm)
    shape_DHW = config.shape(sample.array.shape[1:], sample.spacing_mm)
    if config.is_same(sample.spacing_mm):
        return sample
    volume = _interpolate(sample.array[0].astype(np.float32, copy=False), sample.spacing_mm, shape_DHW, config.spacing_mm)
    outside = sample.outside
    if outside is not None:
        mask = _build_image(outside.astype(np.uint8), sample.spacing_mm)
        outside = _on_grid(mask, shape_DHW, config.spacing_mm, ITK.sitkNearestNeighbor).astype(np.bool_)
    return replace(
        sample,
        array=volume[None],
        outside=outside,
        spacing_mm=(config.spacing_mm,) * 3,
        affine=_move_affine(np.array(sample.affine), sample.spacing_mm, config.spacing_mm),
    )


def _interpolate(
    volume_DHW: npt.NDArray[np.float32], spacing_mm: tuple[float, ...], shape_DHW: tuple[int, int, int], target_mm: float
) -> npt.NDArray[np.float32]:
    image = _build_image(volume_DHW, spacing_mm)
    variances = [_antialias_mm(s, target_mm) ** 2 for s in spacing_mm[::-1]]
    if any(variances):
        smooth = ITK.DiscreteGaussianImageFilter()
        smooth.SetVariance(variances)
        smooth.SetUseImageSpacing(True)
        smooth.SetNumberOfThreads(1)  # sums in one order, on every machine
        image = smooth.Execute(image)
    image = _extend_to_grid(image, shape_DHW, target_mm)
    return np.asarray(_on_grid(image, shape_DHW, target_mm, ITK.sitkLinear), np.float32)


def _extend_to_grid(image: Any, shape_DHW: tuple[int, int, int], target_mm: float) -> Any:
    """Repeat the last planes of an image until the centres of all new voxels lie within it.

    ITK interpolates up to the border; beyond it, along one axis, it would take the nearest voxel along all of them.
    """
    missing = [
        max(0, math.floor((n - 0.5) * target_mm / s - size + SAME_SPACING) + 1)  # the border itself is outside for ITK
        for n, s, size in zip(shape_DHW[::-1], image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return ITK.ZeroFluxNeumannPad(image, (0, 0, 0), missing) if any(missing) else image


def _build_image(array_DHW: Array, spacing_mm: tuple[float, ...]) -> Any:
    image = ITK.GetImageFromArray(array_DHW)
    image.SetSpacing(spacing_mm[::-1])  # SimpleITK speaks (x, y, z)
    return image


def _on_grid(image: Any, shape_DHW: tuple[int, int, int], target_mm: float, interpolator: int) -> Array:
    """An image on cubic voxels that start at the same outer corner."""
    to_grid = ITK.ResampleImageFilter()
    to_grid.SetSize(shape_DHW[::-1])
    to_grid.SetOutputSpacing((target_mm,) * 3)
    to_grid.SetOutputOrigin([(target_mm - s) / 2 for s in image.GetSpacing()])
    to_grid.SetInterpolator(interpolator)
    to_grid.SetUseNearestNeighborExtrapolator(True)
    to_grid.SetNumberOfThreads(1)
    resampled: Array = ITK.GetArrayFromImage(to_grid.Execute(image))
    return resampled


def _antialias_mm(spacing_mm: float, target_mm: float) -> float:
    """Sigma in mm that turns the point spread of one voxel size into that of a larger one; 0 where voxels shrink."""
    if target_mm <= spacing_mm * (1 + SAME_SPACING):
        return 0.0
    return math.sqrt((target_mm**2 - spacing_mm**2) / (8 * math.log(2)))


def _move_affine(
    affine: npt.NDArray[np.float64], spacing_mm: tuple[float, ...], target_mm: float
) -> tuple[tuple[float, ...], ...]:
    ratios = target_mm / np.array(spacing_mm)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ ((ratios - 1) / 2)
    moved[:3, :3] = affine[:3, :3] * ratios
    return tuple(tuple(float(v) for v in row) for row in moved)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResampleStage(Stage):
    """:func:`resample` with its settings."""

    name: ClassVar[str] = "resample"

    config: Resample

    def __call__(self, sample: Sample) -> Sample:
        """The volume, resampled."""
        return resample(sample, self.config)

    def preprocessing(self) -> dict[str, object]:
        """The voxel size; the limit changes no value."""
        return {self.name: {"spacing_mm": self.config.spacing_mm, "border": BORDER}}
