"""Methods: a frozen configuration, of which one part runs in data loading threads and the other, a module, on the device.

A method has no optimizer, device, collective, logging or file; the training loop adds those, once for all methods.
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
    """The position in a run, from which a method derives random numbers and schedules.

    Attributes:
        index: number of the step, from 0.
        total: steps of the run.
        seed: of the run.
    """

    index: int
    total: int
    seed: int

    @property
    def progress(self) -> float:
        """0 at the first step, approaching 1 at the last."""
        return self.index / max(1, self.total)

    def rng(self, stream: str) -> np.random.Generator:
        """A random generator for one stream of batches in this step, the same on all ranks."""
        return np.random.default_rng([self.seed, self.index, STREAMS.index(stream), 0x57E9])


#: Named scalars, each a mean over the samples of a batch.
Terms = dict[str, Tensor]


class StepOutput(NamedTuple):
    """Output of a method for one batch.

    Attributes:
        losses: weighted terms, whose sum is minimised.
        monitors: values that are logged only.
        unused: submodules, by name, that had no part in the losses. In a step that uses them nowhere, on no rank, their weights
            stay as they are: no momentum moves them and nothing decays, as if they had no gradient.
    """

    losses: Terms
    monitors: Terms
    unused: frozenset[str] = frozenset()


#: The name of the encoder's features among those of :meth:`Method.embed`.
ENCODER = "encoder"


class Method(nn.Module, ABC):
    """The part of a method that runs on the device.

    Attributes:
        encoder: what is exported after training.
        encoder_spec: how to rebuild the encoder and prepare its input.
        drawn: submodules, by name, of which a step may use only a part, see :class:`StepOutput`. Of weights that no step has used
            the optimizer has no state.
    """

    drawn: ClassVar[frozenset[str]] = frozenset()
    encoder: nn.Module
    encoder_spec: EncoderSpec

    @abstractmethod
    def forward(self, batch: Batch, step: Step) -> StepOutput:
        """Compute the loss terms and monitors of one batch.

        Args:
            batch: of one stream, on the method's device.
            step: position in the run.

        Returns:
            Scalar loss terms, already weighted, and scalar monitors, by name.
        """

    def embed(self, batch: Batch) -> dict[str, list[Tensor]]:
        """Features in which a collapse would be seen.

        Args:
            batch: views as for :meth:`forward` if the method compares views; else ``x``, whole samples.

        Returns:
            (B, C) of each view, by name; ``encoder`` is the deepest map of the encoder, averaged over space.
        """
        return {ENCODER: [mean_over_space(self.encoder(batch.tensors["x"]))]}

    def networks(self) -> list[nn.Module]:
        """Submodules that are pure functions of tensors, which may be compiled."""
        return [self.encoder]

    def units(self) -> list[nn.Module]:
        """Submodules, none inside another, whose activations may be recomputed in the backward pass."""
        return []

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor | None:
        """The reconstruction of an input in unit range, for pictures; None if the method reconstructs nothing."""


class MethodConfig(ABC):
    """The settings of a method. Subclasses are frozen, keyword-only dataclasses.

    Attributes:
        kind: name in ``crossdim.training.methods.METHODS``.
        accepts: presentations that the method can train on.
        min_rank_batch: smallest number of samples of a dataset that a rank may have in a step; 0 if it may have none.
        compares: whether two views of a sample are compared, so that features may collapse.
        learns_from_labels: whether labels of the samples are needed.
        extension: the module that registered it; None if it is one of crossdim's own.
    """

    kind: ClassVar[str]
    extension: ClassVar[str | None] = None
    accepts: ClassVar[frozenset[Presentation]]
    #: Fewest samples of a presentation that a rank may hold in a step; with 0 it may hold none, and still takes part.
    min_rank_batch: ClassVar[int]
    compares: ClassVar[bool] = False
    learns_from_labels: ClassVar[bool] = False

    @abstractmethod
    def draw(self, sample: Sample, pseudo3d: Pseudo3D | None, rng: np.random.Generator) -> Views:
        """Draw the training views of one sample, or a source and plans from which the device renders them.

        Runs in a loader thread.

        Args:
            sample: as stored.
            pseudo3d: geometry of the dataset's pseudo-3D views; None for superpatches and plain images.
            rng: generator of the sample's position in the run.

        Returns:
            NumPy arrays by name.
        """

    def for_devices(self, geometries: frozenset[Pseudo3D], *, use_gpu: bool) -> MethodConfig:
        """Choose what the settings leave to the devices of a run.

        Args:
            geometries: of the pseudo-3D views of the run's datasets.
            use_gpu: whether each worker has a GPU.

        Returns:
            The settings; these themselves if nothing is left open.
        """
        return self

    def rendered_by_workers(self) -> MethodConfig:
        """The same settings, with which :meth:`draw` returns views and no plans from which the device would render them."""
        return self

    @abstractmethod
    def whole(self, sample: Sample, pseudo3d: Pseudo3D | None) -> Views:
        """The whole sample as the encoder takes it after training, without random decisions.

        Args:
            sample: as stored.
            pseudo3d: as for :meth:`draw`.

        Returns:
            ``x``, the encoder's input without its batch axis, and ``target`` in unit range.
        """

    def label_names(self) -> tuple[str, ...]:
        """The labels that the method learns from; none for a method that needs no labels."""
        return ()

    def with_labels(self, labels: tuple[str, ...]) -> MethodConfig:
        """The same settings, with these classes where the method learns from labels and names no classes.

        Args:
            labels: of all datasets of the run, sorted; fewer than two are no classes, and left alone.
        """
        return self

    def encoder_geometry(self, pseudo3d: Pseudo3D | None) -> Pseudo3D | None:
        """The geometry by which the encoder sees images of a dataset as volumes; None if it does not unroll images."""
        return pseudo3d

    @abstractmethod
    def build(self) -> Method:
        """The module, with weights drawn from torch's global generator."""


def total_of(losses: Terms) -> Tensor:
    """The sum of all terms."""
    return torch.stack(list(losses.values())).sum()


def mean_over_space(map_BC: Tensor) -> Tensor:
    """The mean over space of a feature map of an image or a volume, (B, C)."""
    return map_BC.flatten(2).mean(dim=2)
