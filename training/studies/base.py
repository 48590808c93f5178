"""Study: runs that differ in one thing, on the same data with the same seeds, judged by the same folds, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from crossdim.training.config.pretraining import Pretraining


class Diet(StrEnum):
    """What an arm is fed with."""

    NOTHING = "nothing"
    FLAT = "images"
    SOLID = "volumes"
    BOTH = "images and volumes"

    def holds(self, *, flat: bool) -> bool:
        """Whether a dataset of this kind is part of it."""
        return self is Diet.BOTH or self is (Diet.FLAT if flat else Diet.SOLID)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One way of pretraining: a configuration and its diet. Fed with nothing, the network stays as it was drawn."""

    name: str
    config: Pretraining
    diet: Diet = Diet.BOTH


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A question and the arms that answer it."""

    title: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One measure on one dataset, for one arm and seed.

    Of a probe it is the mean balanced accuracy over folds, of a restoration the mean over volumes.
    """

    arm: str
    seed: int
    dataset: str
    measure: str
    value: float
