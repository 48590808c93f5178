"""Recipes of the laboratory, named ``my_lab.recipes:negatives`` on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from crossdim.pipelines.jobs.recipe import ImageRecipe, VolumeRecipe
from crossdim.pipelines.recipes import images, volumes
from crossdim.pipelines.stages.resize import Fit
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.vocabulary import Modality
from my_lab import flat, solid
from my_lab.negative import NegativeStage

READERS = (flat.READER, solid.READER)
STAGES = (NegativeStage,)


@dataclass(frozen=True, kw_only=True, slots=True)
class NegativeRecipe(ImageRecipe):
    white: int = 255

    def stages(self) -> tuple[Stage, ...]:
        return (NegativeStage(white=self.white), *ImageRecipe.stages(self))


def negatives() -> ImageRecipe:
    return NegativeRecipe(fit=Fit(max_side=64), mode="virtual")


def flat_images() -> ImageRecipe:
    return images.xray_pseudo3d_tiny()


def ct() -> VolumeRecipe:
    tiny = volumes.mixed_superpatches_tiny()
    return VolumeRecipe(
        modalities=(Modality.CT,),
        resample=tiny.resample,
        intensity=tiny.intensity,
        superpatch=tiny.superpatch,
        patches_per_shard=tiny.patches_per_shard,
    )


def no_recipe() -> str:
    return "nothing"
