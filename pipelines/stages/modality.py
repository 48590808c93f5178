"""Accept only volumes of the modalities that a recipe takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class ModalityStage(Stage):
    """The modalities that a recipe takes; all if none is named. The plan checks first; a reader may know more than a header."""

    name: ClassVar[str] = "modality"

    wanted: tuple[Modality, ...] = ()

    def __call__(self, sample: Sample) -> Sample:
        """The sample itself."""
        self.check(sample.modality)
        return sample

    def check(self, modality: Modality) -> None:
        """Refuse another modality.

        Raises:
            SampleError: rule ``modality``.
        """
        if self.wanted and modality not in self.wanted:
            wanted = " or ".join(self.wanted)
            raise SampleError("modality", f"modality is {modality}, the recipe takes {wanted}; if it is one, say --modality")

    def preprocessing(self) -> dict[str, object]:
        """Nothing: it changes no value."""
        return {}
