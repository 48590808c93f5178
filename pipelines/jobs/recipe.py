"""What a recipe must say: the configuration of every stage that an input passes, as one tree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial

from crossdim.foundation.settings import to_document
from crossdim.pipelines.quarantine import Step
from crossdim.pipelines.readers import DECODING_VERSION
from crossdim.pipelines.readers.header_info import Format, HeaderInfo
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.stages.intensity import Intensity, store
from crossdim.pipelines.stages.named import Stage
from crossdim.pipelines.stages.orient import orient
from crossdim.pipelines.stages.pseudo3d import Mode, present
from crossdim.pipelines.stages.resample import Resample, resample
from crossdim.pipelines.stages.resize import Fit, FitStage
from crossdim.pipelines.stages.superpatch import boxes_of, cut_boxes
from crossdim.storage_schema.bank import BankLayout
from crossdim.storage_schema.errors import SampleError, UsageError, wrong_settings
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.superpatch import SuperpatchGrid
from crossdim.storage_schema.vocabulary import Modality, Presentation

Decoder = Callable[[RawItem], Sample]


#: Recipes that a message names for files which the chosen one does not read.
READERS = {
    "xray-pseudo3d": frozenset({Format.PNG, Format.JPEG}),
    "mixed-superpatches": frozenset({Format.NIFTI}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSize:
    """When a shard is full: at a number of bytes (estimated before compression, of which there is none) or of samples."""

    target_bytes: int = 128 * 10**6  # ours: seconds of work to lose, thousands of samples for one listing entry
    max_samples: int = 4096  # ours

    def __post_init__(self) -> None:
        if found := wrong_settings(
            self,
            target_bytes=self.target_bytes >= 1,
            max_samples=self.max_samples >= 1,
        ):
            raise UsageError(f"a shard holds at least one byte and one sample; found {found}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecipe:
    """Images to pseudo-3D samples, or to the images behind them."""

    read: ReadRules = field(default_factory=ReadRules)
    fit: Fit
    pseudo3d: Pseudo3D = field(default_factory=Pseudo3D)
    mode: Mode = "stored"
    shard: ShardSize = field(default_factory=ShardSize)

    def __post_init__(self) -> None:
        if self.mode not in ("stored", "virtual"):
            raise UsageError(f"mode is stored or virtual; found {self.mode!r}")

    @property
    def presentation(self) -> Presentation:
        """What is published."""
        return Presentation.PSEUDO3D if self.mode == "stored" else Presentation.IMAGE

    @property
    def formats(self) -> frozenset[Format]:
        """Formats that hold images."""
        return frozenset({Format.PNG, Format.JPEG, Format.DICOM})

    def preprocessing(self) -> dict[str, object]:
        """The configuration of what touches pixels."""
        return {"decoding": DECODING_VERSION, "fit": asdict(self.fit), "pseudo3d": asdict(self.pseudo3d), "mode": self.mode}

    @property
    def decoder_stages(self) -> tuple[Stage, ...]:
        """What runs in the decoder process behind the decoder: an image comes back at the size that is published."""
        return (FitStage(config=self.fit, spec=self.pseudo3d),)

    def steps(self, decoder: Decoder) -> list[Step]:
        """From one raw item to its samples; ``decoder`` runs :attr:`decoder_stages` too."""
        return [
            ("decode", decoder),
            ("pseudo3d", partial(present, spec=self.pseudo3d, mode=self.mode)),
            ("collect", lambda sample: [sample]),
        ]

    def estimated_bytes(self, info: HeaderInfo) -> int:
        """About the size of the sample that a picture becomes."""
        scale = min(1.0, self.fit.max_side / max(info.shape))
        channels = 1 if self.pseudo3d.channel_mode == "gray" else 3
        return int(info.shape[0] * info.shape[1] * scale**2) * channels


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeRecipe:
    """Volumes to superpatches in a bank. Without ``modalities``, every one is taken."""

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
    def formats(self) -> frozenset[Format]:
        """Formats that hold volumes."""
        return frozenset({Format.NIFTI, Format.DICOM})

    @property
    def layout(self) -> BankLayout:
        """Shapes of the bank."""
        return BankLayout(side=self.superpatch.side, patches_per_shard=self.patches_per_shard)

    def preprocessing(self) -> dict[str, object]:
        """The configuration of what touches voxels."""
        return {
            "decoding": DECODING_VERSION,
            "frames": self.read.frames,
            "orient": "RAS",
            "resample": {"spacing_mm": self.resample.spacing_mm},
            "intensity": to_document(self.intensity),
            "superpatch": asdict(self.superpatch),
        }

    @property
    def decoder_stages(self) -> tuple[Stage, ...]:
        """None: a volume comes back as it was read, because memory of the decoder process is allowed for reading it."""
        return ()

    def steps(self, decoder: Decoder) -> list[Step]:
        """From one raw item to its samples."""
        return [
            ("decode", decoder),
            ("modality", self._of_wanted_modality),
            ("orient", orient),
            ("resample", partial(resample, config=self.resample)),
            ("intensity", partial(store, config=self.intensity)),
            ("superpatch", partial(cut_boxes, grid=self.superpatch)),
        ]

    def _of_wanted_modality(self, sample: Sample) -> Sample:
        if self.modalities and sample.modality not in self.modalities:
            wanted = " or ".join(self.modalities)
            raise SampleError(
                "modality", f"modality is {sample.modality}, the recipe takes {wanted}; if it is one, say --modality"
            )
        return sample

    def boxes(self, shape_DHW: tuple[int, ...], spacing_mm: tuple[float, ...]) -> int:
        """How many boxes a volume can become: the positions that a plan reserves.

        Raises:
            SampleError: rule ``too_large`` or ``too_small``.
        """
        self.read.allow_bytes(4 * math.prod(shape_DHW), shape_DHW)
        self.resample.check_extent(shape_DHW, spacing_mm)
        return boxes_of(self.resample.shape(shape_DHW, spacing_mm), self.superpatch)


Recipe = ImageRecipe | VolumeRecipe
