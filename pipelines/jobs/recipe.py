"""Recipes: the configuration of every stage that an input passes, as one tree."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import ClassVar, get_args

from crossdim.pipelines.quarantine import Step
from crossdim.pipelines.readers import DECODING_VERSION
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.reader import Kind
from crossdim.pipelines.readers.registry import formats_of
from crossdim.pipelines.stages.intensity import Intensity, IntensityStage
from crossdim.pipelines.stages.modality import ModalityStage
from crossdim.pipelines.stages.orient import OrientStage
from crossdim.pipelines.stages.pseudo3d import Mode, Pseudo3DStage
from crossdim.pipelines.stages.resample import Resample, ResampleStage
from crossdim.pipelines.stages.resize import Fit, FitStage
from crossdim.pipelines.stages.stage import Stage
from crossdim.pipelines.stages.superpatch import SuperpatchStage, count_boxes
from crossdim.storage_schema.bank import BankLayout
from crossdim.storage_schema.errors import UsageError, describe_unknown_name, list_wrong_settings
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.superpatch import SuperpatchGrid
from crossdim.storage_schema.vocabulary import Modality, Presentation

Decoder = Callable[[RawItem], Sample]


#: Recipes that a message names for files which the chosen one does not read, by the kind of their readers.
RECIPE_FOR: dict[Kind, str] = {"image": "xray-pseudo3d", "volume": "mixed-superpatches"}


class StagedRecipe(ABC):
    """What all recipes have in common: :meth:`stages` decides both what is done to a sample and what is recorded of it.

    Attributes:
        reads: the kind of readers whose files it takes.
        read: limits and choices of the readers.
    """

    __slots__ = ()

    reads: ClassVar[Kind]
    read: ReadRules

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """What is done to a decoded sample, in order."""

    def decoding(self) -> dict[str, object]:
        """What decides values before the first stage."""
        return {"decoding": DECODING_VERSION}

    @property
    def formats(self) -> frozenset[str]:
        """Formats that it reads."""
        return formats_of(self.reads)

    def preprocessing(self) -> dict[str, object]:
        """The configuration of what touches values, as JSON values."""
        record = self.decoding()
        for stage in self.stages():
            record |= stage.preprocessing()
        return record

    @property
    def decoder_stages(self) -> tuple[Stage, ...]:
        """The first stages, as far as they run in the decoder process."""
        return tuple(takewhile(lambda stage: stage.in_decoder, self.stages()))

    def steps(self, decoder: Decoder) -> list[Step]:
        """From one raw item to its samples.

        Args:
            decoder: gives the sample of an item behind :attr:`decoder_stages`, which it runs too.
        """
        rest = self.stages()[len(self.decoder_stages) :]
        return [("decode", decoder), *((stage.name, stage) for stage in rest), ("collect", _wrap_in_list)]


def _wrap_in_list(samples: Sample | list[Sample]) -> list[Sample]:
    return samples if isinstance(samples, list) else [samples]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSize:
    """When a shard is full: at a number of bytes (estimated before compression, of which there is none) or of samples.

    Attributes:
        target_bytes (bytes): estimated size at which a shard is full.
        max_samples (samples): number of samples at which a shard is full.
    """

    target_bytes: int = 128 * 10**6  # ours: seconds of work to lose, thousands of samples for one listing entry
    max_samples: int = 4096  # ours

    def __post_init__(self) -> None:
        if found := list_wrong_settings(
            self,
            target_bytes=self.target_bytes >= 1,
            max_samples=self.max_samples >= 1,
        ):
            raise UsageError(f"a shard holds at least one byte and one sample; found {found}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecipe(StagedRecipe):
    """Images to pseudo-3D samples, or to the images behind them.

    Attributes:
        read: limits and choices of the readers.
        fit: largest size of an image.
        pseudo3d: geometry of the pseudo-3D view.
        mode: ``stored`` publishes pseudo-3D samples, ``virtual`` the images, which are unrolled when they are read.
        shard: when a shard is full.
    """

    reads: ClassVar[Kind] = "image"

    read: ReadRules = field(default_factory=ReadRules)
    fit: Fit
    pseudo3d: Pseudo3D = field(default_factory=Pseudo3D)
    mode: Mode = "stored"
    shard: ShardSize = field(default_factory=ShardSize)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError(describe_unknown_name("mode", self.mode, get_args(Mode)))

    @property
    def presentation(self) -> Presentation:
        """What is published."""
        return Presentation.PSEUDO3D if self.mode == "stored" else Presentation.IMAGE

    def stages(self) -> tuple[Stage, ...]:
        """Resized, then as its view."""
        return (FitStage(config=self.fit, spec=self.pseudo3d), Pseudo3DStage(spec=self.pseudo3d, mode=self.mode))

    def estimate_bytes(self, info: HeaderInfo) -> int:
        """About the size of the sample that a picture becomes."""
        scale = min(1.0, self.fit.max_side / max(info.shape))
        channels = 1 if self.pseudo3d.channel_mode == "gray" else 3
        return int(info.shape[0] * info.shape[1] * scale**2) * channels


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeRecipe(StagedRecipe):
    """Volumes to superpatches in a bank. Without ``modalities``, every one is taken.

    Attributes:
        read: limits and choices of the readers.
        modalities: modalities that are taken; empty for all.
        resample: voxel size.
        intensity: values that a network sees as 0..1.
        superpatch: boxes that a volume is cut into.
        patches_per_shard (superpatches): boxes in one shard of the bank.
    """

    reads: ClassVar[Kind] = "volume"

    read: ReadRules = field(default_factory=ReadRules)
    modalities: tuple[Modality, ...] = ()
    resample: Resample
    intensity: Intensity
    superpatch: SuperpatchGrid = field(default_factory=SuperpatchGrid)
    patches_per_shard: int = 32  # 128 MB of 128^3 voxels before compression; ours

    def __post_init__(self) -> None:
        if self.patches_per_shard < 1:
            raise UsageError(f"patches_per_shard is at least 1; found {self.patches_per_shard}")

    @property
    def presentation(self) -> Presentation:
        """What is published."""
        return Presentation.SUPERPATCH

    @property
    def layout(self) -> BankLayout:
        """Shapes of the bank."""
        return BankLayout(side=self.superpatch.side, patches_per_shard=self.patches_per_shard)

    def decoding(self) -> dict[str, object]:
        """Also which frames of a file are read, and what is done to sheared stacks and to those with gaps."""
        return {"decoding": DECODING_VERSION, "frames": self.read.frames, "tilt": self.read.tilt, "gaps": self.read.gaps}

    def stages(self) -> tuple[Stage, ...]:
        """Of a wanted modality, oriented, resampled, as integers, in boxes."""
        return (
            self.modality_stage,
            OrientStage(),
            ResampleStage(config=self.resample),
            IntensityStage(config=self.intensity),
            SuperpatchStage(grid=self.superpatch),
        )

    @property
    def modality_stage(self) -> ModalityStage:
        """Which modalities are taken; the plan asks it too, before anything is decoded."""
        return ModalityStage(wanted=self.modalities)

    def boxes(self, shape_DHW: tuple[int, ...], spacing_mm: tuple[float, ...]) -> int:
        """Count the boxes that a volume can become: the positions that a plan reserves.

        Args:
            shape_DHW: by the header, voxels.
            spacing_mm: by the header, along the same axes.

        Returns:
            Number of boxes after resampling.

        Raises:
            SampleError: rule ``too_large`` or ``too_small``.
        """
        self.read.allow_bytes(4 * math.prod(shape_DHW), shape_DHW)
        self.resample.check_extent(shape_DHW, spacing_mm)
        return count_boxes(self.resample.shape(shape_DHW, spacing_mm), self.superpatch)


Recipe = ImageRecipe | VolumeRecipe
