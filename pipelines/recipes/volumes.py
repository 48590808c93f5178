"""Recipes for volumes."""

from __future__ import annotations

from crossdim.pipelines.jobs.recipe import VolumeRecipe
from crossdim.pipelines.stages.intensity import Intensity
from crossdim.pipelines.stages.resample import Resample
from crossdim.storage_schema.superpatch import SuperpatchGrid
from crossdim.storage_schema.vocabulary import Modality

#: PCRLv2's LUNA preprocessing (code: luna_preprocess.py) clips to this; it keeps lung, soft tissue and bone apart.
PCRL_WINDOW_HU = (-1000.0, 1000.0)


def ct_superpatches() -> VolumeRecipe:
    """CT at 1 mm in boxes of 128 voxels, as MAESIL (arXiv 2604.00514) cuts them; 1 mm is ours."""
    return VolumeRecipe(
        modalities=(Modality.CT,),
        resample=Resample(spacing_mm=1.0),
        intensity=Intensity(window_hu=PCRL_WINDOW_HU),
        superpatch=SuperpatchGrid(side=128),
    )


def mixed_superpatches() -> VolumeRecipe:
    """Volumes of every modality in one bank: CT by its window, others by their own percentiles."""
    return VolumeRecipe(
        resample=Resample(spacing_mm=1.0), intensity=Intensity(window_hu=PCRL_WINDOW_HU), superpatch=SuperpatchGrid(side=128)
    )


def mixed_superpatches_tiny() -> VolumeRecipe:
    """The same at 2 mm in boxes of 64 voxels, eight a shard: for demonstrations and tests."""
    return VolumeRecipe(
        resample=Resample(spacing_mm=2.0),
        intensity=Intensity(window_hu=PCRL_WINDOW_HU),
        superpatch=SuperpatchGrid(side=64),
        patches_per_shard=8,
    )
