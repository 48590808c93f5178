"""Predictions that need no training, beside which reconstructions are to be read. Ours; no paper compares with them.

Of hidden patches: one value for the whole dataset, and means of the patches that are visible. Of whole volumes: one value, and
the mean of every block, which is a code of one number a block.

Axes: B batch, C channel, D depth, H height, W width, N patches, V visible patches, X values of a patch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from crossdim.training.layers.tokens import Counts, count_tokens, patchify, spatial_shape, unpatchify

#: Predicts the patches of a box, (B, N, X), from all of them, the places of those that are visible, (B, V), and their grid.
PredictPatches = Callable[[Tensor, Tensor, Counts], Tensor]
DATASET_MEAN, VISIBLE_MEAN, DISTANCE_WEIGHTED, BLOCK_MEAN = (
    "dataset mean",
    "mean of visible",
    "distance-weighted mean",
    "block mean",
)
#: Power of the distance: with the inverse square, near patches weigh most and none is left out.
POWER = 2
#: Side of the blocks of :func:`predict_block_mean`, voxels.
BLOCK = 8


def predict_mean_of_visible(patches_BNX: Tensor, ids_BV: Tensor, counts: Counts) -> Tensor:
    """Every patch is the mean of the visible ones, value by value.

    Args:
        patches_BNX: of the box; hidden ones are not looked at.
        ids_BV: places of the visible patches.
        counts: patches along (D, H, W); not used.

    Returns:
        (B, N, X).
    """
    visible_BVX = patches_BNX.gather(1, ids_BV[:, :, None].expand(-1, -1, patches_BNX.shape[2]))
    return visible_BVX.mean(1, keepdim=True).expand_as(patches_BNX)


def predict_distance_weighted_mean(patches_BNX: Tensor, ids_BV: Tensor, counts: Counts) -> Tensor:
    """Every value of a patch is the mean of the means of the visible patches, weighted by 1 / distance² to their centres.

    Distances are in patches. A visible patch is predicted from the other visible ones, so that it is no copy of its input; the
    only one there is, from itself.

    Args:
        patches_BNX: of the box; hidden ones are not looked at.
        ids_BV: places of the visible patches.
        counts: patches along (D, H, W).

    Returns:
        (B, N, X).
    """
    places_N3 = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32, device=ids_BV.device) for n in counts)).view(-1, 3)
    distance_BNV = torch.cdist(places_N3.expand(len(ids_BV), -1, -1), places_N3[ids_BV])
    weights_BNV = torch.where(distance_BNV > 0, distance_BNV.clamp_min(1e-6) ** -POWER, float(ids_BV.shape[1] == 1))
    means_BN = patches_BNX.mean(2)
    mixed_BN = (weights_BNV @ means_BN.gather(1, ids_BV)[:, :, None])[:, :, 0] / weights_BNV.sum(2)
    return mixed_BN[:, :, None].expand_as(patches_BNX)


def build_hidden_predictors(dataset_mean: float) -> dict[str, PredictPatches]:
    """Build the predictors of hidden patches, by name.

    Args:
        dataset_mean: mean of the dataset's voxels, unit range.

    Returns:
        Functions of the patches of a box.
    """
    return {
        DATASET_MEAN: lambda patches_BNX, ids_BV, counts: torch.full_like(patches_BNX, dataset_mean),
        VISIBLE_MEAN: predict_mean_of_visible,
        DISTANCE_WEIGHTED: predict_distance_weighted_mean,
    }


def predict_block_mean(x_BCDHW: Tensor) -> Tensor:
    """Every block of :data:`BLOCK` voxels a side is its own mean.

    Args:
        x_BCDHW: a box; its sides are multiples of the block.

    Returns:
        (B, C, D, H, W).
    """
    block = (BLOCK, BLOCK, BLOCK)
    means = [  # channel by channel: patches hold the values of all
        patchify(channel, block).mean(2, keepdim=True).expand(-1, -1, BLOCK**3) for channel in x_BCDHW[:, :, None].unbind(1)
    ]
    counts = count_tokens(spatial_shape(x_BCDHW), block)
    return torch.cat([unpatchify(patches, block, counts) for patches in means], dim=1)
