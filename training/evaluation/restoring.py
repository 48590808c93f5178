"""Reconstruction figures of a method over the volumes of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crossdim.storage_schema.vocabulary import Split
from crossdim.training.data.dataset import PublishedDataset
from crossdim.training.evaluation.assembly import Tiling
from crossdim.training.evaluation.reconstruction import Figure, Protocol, evaluate_volumes
from crossdim.training.evaluation.volumes import assemble_volumes, find_held_out
from crossdim.training.methods.base import Method, MethodConfig
from crossdim.training.methods.restoration import Crops, Restorer

NO_LPIPS = "LPIPS: not computed, its network is not available offline"
#: Neighbouring boxes share an eighth of their side.
OVERLAP = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class RestorationResult:
    """Figures over the volumes of one split of a dataset."""

    dataset: str
    split: str
    volumes: tuple[str, ...]
    figures: tuple[Figure, ...]

    @property
    def lines(self) -> list[str]:
        """For people: every figure with its n, its spread over volumes, and the compression."""
        return [f"{self.head}:", *(f"  {figure}" for figure in self.figures), f"  {NO_LPIPS}"]

    @property
    def head(self) -> str:
        """What was reconstructed."""
        seen = ", which the encoder was trained on" if self.split == Split.TRAIN else ""
        return f"{self.dataset}, {len(self.volumes)} volumes of split {self.split}{seen}"

    def document(self) -> dict[str, Any]:
        """The same as plain values."""
        figures = {f.name: {"values": list(f.values), "compression": f.compression} for f in self.figures}
        return {"dataset": self.dataset, "split": self.split, "volumes": list(self.volumes), "figures": figures}


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
    figures = evaluate_volumes(method, assemble_volumes(dataset, sources), protocol)
    return RestorationResult(dataset=name, split=split, volumes=tuple(sources), figures=tuple(figures))
