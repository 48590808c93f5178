"""Dual masks: which tokens of a grid an encoder sees. The count is the same for every sample, and ids are sorted.

A mask is a function of uniform numbers that were drawn with the sample, so it depends on (seed, position) only.
Axes: B batch, D planes of tokens, P places in a plane (rows x columns), V visible tokens.

Source: MAESIL (arXiv 2604.00514) names a dual-masking strategy, whose description was not available to us.
``tube_then_plane`` is what its sibling does (code: NEMESIS, mae.py 413-456), ``plane_x_axis`` our reading of that paper's
abstract ("parallel plane-wise and axis-wise token removal"), ``random`` plain masking as a control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crossdim.storage_schema.errors import RunError, list_wrong_settings
from crossdim.training.layers.tokens import Counts

MaskMode = Literal["tube_then_plane", "plane_x_axis", "random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DualMask:
    """How tokens are hidden.

    Attributes:
        mode: ``tube_then_plane`` hides the same places in all planes, then in each plane some of those left;
            ``plane_x_axis`` hides whole planes, and the same places in all others; ``random`` hides any tokens.
        spatial: fraction of the places of a plane that is hidden.
        depth: fraction that is hidden within each plane, or of the planes.
    """

    mode: MaskMode = "tube_then_plane"
    spatial: float = 0.5  # code: NEMESIS, configs/pretrain.yaml line 50
    depth: float = 0.5

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            mode=self.mode in _MODES,
            spatial=0 <= self.spatial < 1,
            depth=0 <= self.depth < 1,
        ):
            raise RunError(f"a dual mask is one of {list(_MODES)} with shares in [0, 1); found {found}")

    def draw(self, counts: Counts, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """Draw the uniform numbers of one sample's mask.

        Args:
            counts: tokens along (D, H, W).
            rng: source of the draws.

        Returns:
            (1 + D, P).
        """
        planes, rows, columns = counts
        return rng.random((1 + planes, rows * columns), dtype=np.float32)

    def visible(self, chance_BDP: Tensor) -> Tensor:
        """Ids of the visible tokens, ascending: (B, V) int64.

        Args:
            chance_BDP: (B, 1 + D, P) of :meth:`draw`; row 0 is for places, the others for planes.
        """
        return _MODES[self.mode](self, chance_BDP[:, 0], chance_BDP[:, 1:]).sort(dim=1).values

    def num_visible(self, counts: Counts) -> int:
        """Number of visible tokens of a grid."""
        planes, places = counts[0], counts[1] * counts[2]
        if self.mode == "random":
            return _num_left(planes * places, self.spatial, self.depth)
        if self.mode == "plane_x_axis":
            return _num_left(planes, self.depth) * _num_left(places, self.spatial)
        return planes * _num_left(_num_left(places, self.spatial), self.depth)


def _num_left(count: int, *hidden: float) -> int:
    """How many of ``count`` are left, at least one. The small term keeps 10 * (1 - 0.9) from being rounded down to 0."""
    share = 1.0
    for part in hidden:
        share *= 1 - part
    return max(1, floor(count * share + 1e-9))


def _smallest(chance: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` smallest numbers along the last axis; stable, so that every device agrees."""
    return chance.argsort(dim=-1, stable=True)[..., :count]


def _tube_then_plane(mask: DualMask, places_BP: Tensor, planes_BDP: Tensor) -> Tensor:
    planes, places = planes_BDP.shape[1:]
    tubes = _smallest(places_BP, _num_left(places, mask.spatial))[:, None].expand(-1, planes, -1)
    kept = _smallest(planes_BDP.gather(2, tubes), _num_left(tubes.shape[2], mask.depth))
    base = torch.arange(planes, device=places_BP.device)[:, None] * places
    return (tubes.gather(2, kept) + base).flatten(1)


def _plane_x_axis(mask: DualMask, places_BP: Tensor, planes_BDP: Tensor) -> Tensor:
    planes, places = planes_BDP.shape[1:]
    columns = _smallest(places_BP, _num_left(places, mask.spatial))
    kept = _smallest(planes_BDP[:, :, 0], _num_left(planes, mask.depth))
    return (kept[:, :, None] * places + columns[:, None]).flatten(1)


def _random(mask: DualMask, places_BP: Tensor, planes_BDP: Tensor) -> Tensor:
    anywhere = planes_BDP.flatten(1)
    return _smallest(anywhere, _num_left(anywhere.shape[1], mask.spatial, mask.depth))


_MODES: dict[str, Callable[[DualMask, Tensor, Tensor], Tensor]] = {
    "tube_then_plane": _tube_then_plane,
    "plane_x_axis": _plane_x_axis,
    "random": _random,
}
