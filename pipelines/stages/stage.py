"""The interface of a stage. See "To add" in the README of pipelines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from crossdim.storage_schema.sample import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(ABC):
    """One step after the reader: a frozen dataclass of settings that is called with a sample.

    Attributes:
        name: the stage in its quarantine rows; no two stages have the same.
        in_decoder: whether it runs in the decoder process, so that less data comes back. Such stages follow directly after the
            reader, return one sample each, and stay within the memory that decoding was allowed.
    """

    name: ClassVar[str]
    in_decoder: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, sample: Sample) -> Any:
        """The changed sample; of the last stage, a list of samples."""

    @abstractmethod
    def preprocessing(self) -> dict[str, object]:
        """Its part of the dataset's record of preprocessing: every setting that changes stored values, as JSON values."""
