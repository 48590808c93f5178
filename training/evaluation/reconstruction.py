"""Reconstruction of whole volumes, in three protocols, reported with the size of the code.

* ``unmasked``: all tokens are visible. It measures plain autoencoding; a code larger than its input can hold all of it. A
  masked loss does not train the prediction of visible tokens, so for a masked method this measures an untrained part of the
  decoder.
* ``masked``: a quarter is visible (or what the method's mask leaves); every voxel is predicted, none is copied from the input.
* ``hidden``: of the same boxes, the error of hidden patches only, before boxes are blended.

Where boxes overlap or are shifted, a voxel that is hidden in one box may be visible in another, so ``masked`` figures of
different tilings are not comparable; ``hidden`` does not have this problem.

Beside them stand predictions that need no training, see :mod:`.trivial_predictors`: of hidden patches, for the same masks, and of
whole volumes.

Which of these the paper's 30.28 dB is was not available to us, nor whether its baselines were compared in the same setting.
Baselines have no mask, so only the first applies to them. LPIPS is not computed, see :mod:`.quality`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.sample import Array, Scaling
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.order import rng_at
from crossdim.training.evaluation.assembly import Restore, Tiling, average_over_shifts, restore_in_slabs
from crossdim.training.evaluation.patterns import GridPattern
from crossdim.training.evaluation.quality import Comparison, psnr
from crossdim.training.evaluation.trivial_predictors import (
    BLOCK,
    BLOCK_MEAN,
    DATASET_MEAN,
    DISTANCE_WEIGHTED,
    VISIBLE_MEAN,
    PredictPatches,
    build_hidden_predictors,
    predict_block_mean,
)
from crossdim.training.evaluation.volume_figures import NEAR_CONSTANT, Figure, VolumeFigures
from crossdim.training.layers.tokens import count_tokens, patchify, spatial_shape, visible_mask
from crossdim.training.methods.masked_autoencoder import MaskedAutoencoder
from crossdim.training.methods.restoration import Restorer

Floats = npt.NDArray[np.float32]
STREAM = str(Presentation.SUPERPATCH)


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A volume to be reconstructed.

    Attributes:
        name: of its source.
        array_CDHW: stored values; may be a memory map.
        scaling: of the stored values.
    """

    name: str
    array_CDHW: Array
    scaling: Scaling

    @property
    def air(self) -> float:
        """The stored value of 0 in unit range."""
        return (self.scaling.low - self.scaling.intercept) / self.scaling.slope


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How volumes are reconstructed.

    Attributes:
        tiling: boxes and their overlap.
        shifts: voxels by which each box is shifted and reconstructed again, see :func:`.assembly.average_over_shifts`.
        patch: rows and columns of the grid for which patterns are measured.
        seed: of masks; a box of a volume has the same mask for every method.
    """

    tiling: Tiling
    shifts: tuple[int, ...] = (0,)
    patch: tuple[int, int] = (8, 8)
    seed: int = 0


class MaskedBoxes:
    """Reconstructs boxes from their visible tokens, and sums the error of the hidden ones, of trivial predictors too."""

    def __init__(
        self, method: MaskedAutoencoder, seed: int, predictors: Mapping[str, PredictPatches] = MappingProxyType({})
    ) -> None:
        self._method, self._seed, self._predictors = method, seed, predictors
        self._squares, self._values = dict.fromkeys(("", *predictors), 0.0), 0

    def ids(self, x_BCDHW: Tensor, number: int) -> Tensor:
        """Visible tokens of a box, a function of seed and number.

        Args:
            x_BCDHW: the box.
            number: of the box.

        Returns:
            (B, V).
        """
        return self._method.draw_visible(x_BCDHW, STREAM, rng_at(self._seed, number))

    def __call__(self, x_BCDHW: Tensor, number: int) -> Tensor:
        """The box, predicted everywhere."""
        ids = self.ids(x_BCDHW, number)
        restored = _require_volume(self._method.restore(x_BCDHW, ids))
        patches, counts = patchify(x_BCDHW, self._method.patch), count_tokens(spatial_shape(x_BCDHW), self._method.patch)
        hidden = ~visible_mask(ids, patches.shape[1])
        predicted = {"": patchify(restored, self._method.patch)}
        predicted |= {name: predict(patches, ids, counts) for name, predict in self._predictors.items()}
        for name, found in predicted.items():
            self._squares[name] += float((found - patches)[hidden].double().square().sum())
        self._values += patches[hidden].numel()
        return restored

    def psnr(self, predictor: str = "") -> float:
        """Decibels of hidden patches, of the method or of a trivial predictor; NaN if nothing was hidden."""
        return psnr(self._squares[predictor] / self._values) if self._values else math.nan


def _require_volume(restored: Tensor | None) -> Tensor:
    if restored is None:
        raise RunError("this method predicts patches normalised one by one (norm_pix) and restores no volume")
    return restored


@torch.no_grad()
def measure(volume: Volume, restore: Restore, protocol: Protocol) -> dict[str, float]:
    """PSNR and SSIM of a whole volume, and the power of its error at the patch grid.

    Args:
        volume: to be reconstructed.
        restore: reconstructs a box.
        protocol: boxes and patch grid.

    Returns:
        ``psnr`` (dB), ``ssim`` and ``pattern``.
    """
    comparison, pattern = Comparison(), GridPattern(protocol.patch)
    for start, unit in restore_in_slabs(volume.array_CDHW, volume.scaling, restore, protocol.tiling, volume.air):
        true = volume.scaling.unit(volume.array_CDHW[:, start : start + unit.shape[1]])
        for one, two in zip(unit, true, strict=True):
            comparison.add(torch.from_numpy(one), torch.from_numpy(two))
            pattern.add(one - two)
    return {"psnr": comparison.psnr, "ssim": comparison.ssim, "pattern": pattern.ratio}


def evaluate_volumes(method: Restorer, volumes: Iterable[Volume], protocol: Protocol, dataset_mean: float) -> VolumeFigures:
    """Compute all figures of a method over volumes.

    Args:
        method: set to evaluation mode.
        volumes: at least one.
        protocol: how they are reconstructed.
        dataset_mean: mean of the dataset's voxels, unit range.

    Returns:
        Each figure with its values, one for each volume, and the compression of the code.

    Raises:
        RunError: if the method predicts normalised patches.
    """
    method.eval()
    rows: dict[bool, list[tuple[str, dict[Measured, float]]]] = {False: [], True: []}
    for volume in volumes:
        apart = float(volume.scaling.unit(volume.array_CDHW).std()) < NEAR_CONSTANT
        rows[apart].append((volume.name, _row(method, volume, protocol, dataset_mean)))
    sizes = _compressions(method, protocol)
    ordinary, constant = (
        (tuple(name for name, _ in some), _build_figures([row for _, row in some], sizes)) for some in (rows[False], rows[True])
    )
    return VolumeFigures(volumes=ordinary[0], figures=ordinary[1], near_constant=constant[0], near_constant_figures=constant[1])


#: A protocol and a measure, such as ``hidden psnr``, and the predictor, empty for the method.
Measured = tuple[str, str]


def _build_figures(rows: Sequence[Mapping[Measured, float]], sizes: Mapping[Measured, float]) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            name=name,
            values=tuple(row[name, predictor] for row in rows),
            compression=sizes[name.split()[0], predictor],
            predictor=predictor,
        )
        for name, predictor in (rows[0] if rows else ())
    )


def _compressions(method: Restorer, protocol: Protocol) -> dict[Measured, float]:
    """Of each protocol and predictor. One number for a dataset is no code of a volume: its compression is without bound."""
    side = protocol.tiling.side
    whole = method.compression((side, side, side))
    sizes = {("unmasked", ""): whole, ("unmasked", DATASET_MEAN): math.inf, ("unmasked", BLOCK_MEAN): float(BLOCK**3)}
    if isinstance(method, MaskedAutoencoder):
        counts = count_tokens((side, side, side), method.patch)
        share = math.prod(counts) / method.mask_of(STREAM).num_visible(counts)
        sizes |= {("masked", ""): whole * share, ("hidden", ""): whole * share, ("hidden", DATASET_MEAN): math.inf}
        sizes |= {("hidden", VISIBLE_MEAN): share, ("hidden", DISTANCE_WEIGHTED): share}
    return sizes


def _row(method: Restorer, volume: Volume, protocol: Protocol, dataset_mean: float) -> dict[Measured, float]:
    seeing = average_over_shifts(lambda x, number: _require_volume(method.reconstruct(x)), protocol.shifts)
    row = {(f"unmasked {name}", ""): value for name, value in measure(volume, seeing, protocol).items()}
    whole: dict[str, Restore] = {DATASET_MEAN: lambda x, number: torch.full_like(x, dataset_mean)}
    if protocol.tiling.side % BLOCK == 0:
        whole[BLOCK_MEAN] = lambda x, number: predict_block_mean(x)
    for predictor, restore in whole.items():
        found = measure(volume, restore, protocol)
        row |= {(f"unmasked {name}", predictor): found[name] for name in ("psnr", "ssim")}
    if isinstance(method, MaskedAutoencoder):
        predictors = build_hidden_predictors(dataset_mean)
        boxes = MaskedBoxes(method, protocol.seed, predictors)
        masked = measure(volume, average_over_shifts(boxes, protocol.shifts), protocol)
        row |= {(f"masked {name}", ""): value for name, value in masked.items()}
        row |= {("hidden psnr", predictor): boxes.psnr(predictor) for predictor in ("", *predictors)}
    return row
