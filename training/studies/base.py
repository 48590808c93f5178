"""Study: runs that differ in one thing, on the same data with the same seeds, evaluated on the same folds, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from crossdim.training.config.pretraining import Pretraining


class DataSubset(StrEnum):
    """Which of the study's datasets an arm is trained on. The values are stored in ``study.json``."""

    NOTHING = "nothing"
    IMAGES = "images"
    VOLUMES = "volumes"
    BOTH = "images and volumes"

    def includes(self, *, is_2d: bool) -> bool:
        """Whether datasets of images (``is_2d``) or of volumes are part of it."""
        return self is DataSubset.BOTH or self is (DataSubset.IMAGES if is_2d else DataSubset.VOLUMES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way of pretraining: a configuration and the datasets it is trained on. Without any, the network stays untrained."""

    name: str
    config: Pretraining
    data: DataSubset = DataSubset.BOTH


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A question and the arms that answer it."""

    title: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One measure on one dataset, for one arm and seed.

    For a probe, the mean balanced accuracy over folds; for a reconstruction, the mean over volumes.
    """

    arm: str
    seed: int
    dataset: str
    measure: str
    value: float
