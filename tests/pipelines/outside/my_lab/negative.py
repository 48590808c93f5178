"""One more stage, which runs in the decoder process: the negative of an image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class NegativeStage(Stage):
    name: ClassVar[str] = "negative"
    in_decoder: ClassVar[bool] = True

    white: int = 255

    def __call__(self, sample: Sample) -> Sample:
        return replace(sample, array=(self.white - sample.array).astype(np.uint8))

    def preprocessing(self) -> dict[str, object]:
        return {self.name: {"white": self.white}}
