"""Stages that have a name and settings that can be written down, so that the decoder process can run them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar, Protocol

from crossdim.pipelines.stages.resize import FitStage
from crossdim.storage_schema.sample import Sample


class Stage(Hashable, Protocol):
    """A frozen dataclass of settings: what is done to a sample behind its decoder.

    Attributes:
        name: its key in :data:`STAGES`, and the stage of its quarantine rows.
    """

    name: ClassVar[str]

    def __call__(self, sample: Sample) -> Sample:
        """The changed sample, which the decoder process gives back; its memory must lie within what decoding was allowed."""


#: By name. A new one is a class and a line here.
STAGES: dict[str, type[Stage]] = {FitStage.name: FitStage}
