"""Reconstruction figures of a method over the volumes of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from crossdim.storage_schema.vocabulary import Split
from crossdim.training.data.dataset import PublishedDataset, read_sample
from crossdim.training.data.fixed_batch import spread_rows
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.evaluation.assembly import Tiling
from crossdim.training.evaluation.reconstruction import Protocol, evaluate_volumes
from crossdim.training.evaluation.volume_figures import NEAR_CONSTANT, Figure, VolumeFigures
from crossdim.training.evaluation.volumes import assemble_volumes, find_held_out
from crossdim.training.methods.base import Method, MethodConfig
from crossdim.training.methods.restoration import Crops, Restorer

APART = f", nearly constant (deviation below {NEAR_CONSTANT} in unit range), in no mean above"
NO_LPIPS = "LPIPS: not computed, its network is not available offline"
#: Neighbouring boxes share an eighth of their side.
OVERLAP = 8
#: Samples from which the mean of a dataset is estimated.
NUM_SAMPLES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorationResult:
    """Figures over the volumes of one split of a dataset."""

    dataset: str
    split: str
    found: VolumeFigures

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Over the volumes that are not nearly constant; over those that are, if there are no others."""
        return self.found.figures or self.found.near_constant_figures

    @property
    def lines(self) -> list[str]:
        """For people: every figure with its n, its spread over volumes, and the compression."""
        groups = [
            (self.found.volumes, self.found.figures, ""),
            (self.found.near_constant, self.found.near_constant_figures, APART),
        ]
        blocks = [
            [f"{self.describe(len(volumes))}{apart}:", *(f"  {figure}" for figure in figures)]
            for volumes, figures, apart in groups
            if volumes
        ]
        return [*(line for block in blocks for line in block), f"  {NO_LPIPS}"]

    def describe(self, count: int) -> str:
        """What was reconstructed."""
        seen = ", which the encoder was trained on" if self.split == Split.TRAIN else ""
        return f"{self.dataset}, {count} volume{'s' * (count != 1)} of split {self.split}{seen}"

    def document(self) -> dict[str, Any]:
        """The same as plain values."""
        found = self.found
        constant = {"volumes": list(found.near_constant), "figures": _document(found.near_constant_figures)}
        return {
            "dataset": self.dataset,
            "split": self.split,
            "volumes": list(found.volumes),
            "figures": _document(found.figures),
            **({"near_constant": constant} if found.near_constant else {}),
        }


def _document(figures: Sequence[Figure]) -> dict[str, Any]:
    return {
        f.label: {"values": list(f.values), "compression": f.compression if isfinite(f.compression) else None} for f in figures
    }


def evaluate_restoration(name: str, dataset: PublishedDataset, config: MethodConfig, method: Method) -> RestorationResult | None:
    """Figures of a method on the volumes that were held out, or on all if none was.

    Args:
        name: of the dataset in the results.
        dataset: every split.
        config: settings of the method.
        method: the network.

    Returns:
        None if the method reconstructs no volumes or the dataset has none.
    """
    crops = getattr(config, "crops", None)
    if not isinstance(method, Restorer) or not isinstance(crops, Crops) or dataset.manifest.presentation.is_2d:
        return None
    split, sources = find_held_out(dataset)
    protocol = Protocol(tiling=Tiling(side=crops.solid_side, overlap=crops.solid_side // OVERLAP))
    found = evaluate_volumes(method, assemble_volumes(dataset, sources), protocol, estimate_mean(dataset))
    return RestorationResult(dataset=name, split=split, found=found)


def estimate_mean(dataset: PublishedDataset) -> float:
    """Estimate the mean of the voxels that a method is trained on, in unit range, from samples spread over the catalog.

    Args:
        dataset: every split.

    Returns:
        Mean of :data:`NUM_SAMPLES` samples of split ``train``, or of any if there are none.
    """
    splits = dataset.column("split")
    trained = [row for row, split in enumerate(splits) if split == Split.TRAIN] or list(range(len(splits)))
    reader = open_range_reader(dataset.bucket)
    return float(np.mean([read_sample(dataset, row, reader).unit().mean() for row in spread_rows(trained, NUM_SAMPLES)]))
