"""What a stage provides. See "To add" in the README of pipelines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from crossdim.storage_schema.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(ABC):
    """One step behind the decoder: a frozen dataclass of settings that is called with a sample.

    Attributes:
        name: the stage of its quarantine rows; no two stages share one.
        in_decoder: whether it runs in the decoder process, so that less comes back from there. Such stages stand right behind the
            decoder, give one sample each, and their memory lies within what decoding was allowed.
    """

    name: ClassVar[str]
    in_decoder: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, sample: Sample) -> Any:
        """The changed sample; of the last stage, a list of samples."""

    @abstractmethod
    def preprocessing(self) -> dict[str, object]:
        """What it adds to the dataset's record of its preprocessing: every setting that changes stored values, as JSON values."""
