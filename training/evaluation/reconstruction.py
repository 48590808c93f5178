"""Reconstruction of whole volumes, in three protocols, reported with the size of the code.

* ``unmasked``: all tokens are visible. It measures plain autoencoding; a code larger than its input can hold all of it. A
  masked loss does not train the prediction of visible tokens, so for a masked method this measures an untrained part of the
  decoder.
* ``masked``: a quarter is visible (or what the method's mask leaves); every voxel is predicted, none is copied from the input.
* ``hidden``: of the same boxes, the error of hidden patches only, before boxes are blended.

Where boxes overlap or are shifted, a voxel that is hidden in one box may be visible in another, so ``masked`` figures of
different tilings are not comparable; ``hidden`` does not have this problem.

Which of these the paper's 30.28 dB is was not available to us, nor whether its baselines were compared in the same setting.
Baselines have no mask, so only the first applies to them. LPIPS is not computed, see :mod:`.quality`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

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
from crossdim.training.layers.tokens import count_tokens, patchify, visible_mask
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A measure of every volume, with the compression at which it was reached."""

    name: str
    values: tuple[float, ...]
    compression: float

    @property
    def mean(self) -> float:
        """Mean over volumes."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Sample deviation over volumes; NaN for a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan

    def __str__(self) -> str:
        size = f"n = {len(self.values)}, compression {self.compression:.3g}:1"
        return f"{self.name}: {self.mean:.4g} ± {self.spread:.2g} ({size})"


class MaskedBoxes:
    """Reconstructs boxes from their visible tokens, and sums the error of the hidden ones."""

    def __init__(self, method: MaskedAutoencoder, seed: int) -> None:
        self._method, self._seed = method, seed
        self._squares, self._values = 0.0, 0

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
        error = patchify(restored - x_BCDHW, self._method.patch)
        hidden = error[~visible_mask(ids, error.shape[1])]
        self._squares += float(hidden.double().square().sum())
        self._values += hidden.numel()
        return restored

    @property
    def psnr(self) -> float:
        """Decibels of hidden patches; NaN if nothing was hidden."""
        return psnr(self._squares / self._values) if self._values else math.nan


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


def evaluate_volumes(method: Restorer, volumes: Iterable[Volume], protocol: Protocol) -> list[Figure]:
    """Compute all figures of a method over volumes.

    Args:
        method: set to evaluation mode.
        volumes: at least one.
        protocol: how they are reconstructed.

    Returns:
        Each figure with its values, one for each volume, and the compression of the code.

    Raises:
        RunError: if the method predicts normalised patches.
    """
    method.eval()
    rows = [_row(method, volume, protocol) for volume in volumes]
    side = protocol.tiling.side
    whole = method.compression((side, side, side))
    sizes = {"unmasked": whole}
    if isinstance(method, MaskedAutoencoder):
        counts = count_tokens((side, side, side), method.patch)
        sizes["masked"] = sizes["hidden"] = whole * math.prod(counts) / method.mask_of(STREAM).num_visible(counts)
    return [Figure(name=n, values=tuple(row[n] for row in rows), compression=sizes[n.split()[0]]) for n in rows[0]]


def _row(method: Restorer, volume: Volume, protocol: Protocol) -> dict[str, float]:
    seeing = average_over_shifts(lambda x, number: _require_volume(method.reconstruct(x)), protocol.shifts)
    row = {f"unmasked {name}": value for name, value in measure(volume, seeing, protocol).items()}
    if isinstance(method, MaskedAutoencoder):
        boxes = MaskedBoxes(method, protocol.seed)
        masked = measure(volume, average_over_shifts(boxes, protocol.shifts), protocol)
        row |= {f"masked {name}": value for name, value in masked.items()} | {"hidden psnr": boxes.psnr}
    return row
