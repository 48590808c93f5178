"""Recipes for images."""

from __future__ import annotations

from crossdim.pipelines.jobs.recipe import ImageRecipe, ShardSize
from crossdim.pipelines.stages.resize import Fit
from crossdim.storage_schema.pseudo3d import Pseudo3D


def xray_pseudo3d() -> ImageRecipe:
    """Radiographs as pseudo-3D samples.

    Gao et al. (CDSSL-P3D, arXiv 2406.00947) give the idea; window 4, stride 4 and gray are ours, see ``Pseudo3D``.
    """
    # 1024: ours; ChestX-ray14's published side, enough for crops of 224 and above.
    return ImageRecipe(fit=Fit(max_side=1024), pseudo3d=Pseudo3D(window=4, stride=4, channel_mode="gray"), mode="stored")


def xray_pseudo3d_tiny() -> ImageRecipe:
    """The same at thumbnail size and in small shards: for demonstrations and tests."""
    return ImageRecipe(
        fit=Fit(max_side=192), pseudo3d=Pseudo3D(window=4, stride=4, channel_mode="gray"), shard=ShardSize(max_samples=32)
    )
