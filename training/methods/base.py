"""What a method is: a frozen config from which two halves grow, one for data workers and one for the device.

A method holds no optimizer, device, collective, logging or file; the loop adds those once, for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.data.collate import STREAMS, Batch, Views


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Where in a run we are: what a method may make its chance and its schedules from."""

    index: int
    total: int
    seed: int

    @property
    def progress(self) -> float:
        """0 at the first step, towards 1 at the last."""
        return self.index / max(1, self.total)

    def rng(self, stream: str) -> np.random.Generator:
        """Chance that all ranks share in this step, for one stream of batches."""
        return np.random.default_rng([self.seed, self.index, STREAMS.index(stream), 0x57E9])


#: Named scalars, each a mean over the samples of a batch.
Terms = dict[str, Tensor]


class StepOutput(NamedTuple):
    """What one batch gave: ``losses``, already weighted, whose sum is minimised; ``monitors``, which are only watched."""

    losses: Terms
    monitors: Terms


class Method(nn.Module, ABC):
    """The half that runs on the device."""

    encoder: nn.Module
    encoder_spec: EncoderSpec

    @abstractmethod
    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Loss terms and monitors of one batch."""

    def networks(self) -> list[nn.Module]:
        """Submodules that are functions of tensors alone: what may be compiled."""
        return [self.encoder]

    def units(self) -> list[nn.Module]:
        """Submodules, one inside no other, between whose borders activations may be computed again in the backward pass."""
        return []

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor | None:
        """What the method restores from an input, in unit range; None if it restores nothing. For pictures."""


class MethodConfig(ABC):
    """The half that can be written down. Subclasses are frozen, keyword-only dataclasses."""

    kind: ClassVar[str]
    accepts: ClassVar[frozenset[Presentation]]
    #: Fewest samples of a presentation that a rank may hold in a step; with 0 it may hold none, and still takes part.
    min_rank_batch: ClassVar[int]

    @abstractmethod
    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Views of one sample, for training, or what the device makes them from; numpy only, in a loader thread."""

    @abstractmethod
    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The sample as the encoder sees it after training: view ``x`` without distortion, and ``target``."""

    def seen_as(self, pseudo3d: Pseudo3D | None) -> Pseudo3D | None:
        """The geometry in which the encoder sees images of a dataset; None where it unrolls none."""
        return pseudo3d

    @abstractmethod
    def build(self) -> Method:
        """The module, with freshly drawn weights from torch's generator."""


def total_of(losses: Terms) -> Tensor:
    """The sum of all terms."""
    return torch.stack(list(losses.values())).sum()
