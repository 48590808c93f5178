"""The run that is evaluated: its encoder, and which samples of a dataset may be probed with it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import is_same_place
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.storage_schema.vocabulary import Split
from crossdim.training.config.pretraining import Pretraining
from crossdim.training.data.dataset import PublishedDataset
from crossdim.training.methods.base import Method
from crossdim.training.run_dir.run_config import read_run_config
from crossdim.training.split_choice import ALL, AUTO, SplitChoice


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluatedRun:
    """A run whose encoder is evaluated, and what of the datasets.

    Attributes:
        run: its folder.
        config: of the run.
        method: its newest network.
        step: of that.
        checkpoints: steps of those that are probed as well.
        split: whose samples are probed, see :mod:`crossdim.training.split_choice`.
        datasets: that the run was trained on, as in its identity.
        sources: URLs of these, as they were when it was started.
    """

    run: Bucket
    config: Pretraining
    method: Method
    step: int
    checkpoints: Sequence[int]
    split: SplitChoice
    datasets: Sequence[Mapping[str, Any]]
    sources: Sequence[str]

    @property
    def uses_labels(self) -> bool:
        """Whether the encoder was trained from labels."""
        return bool(self.config.method.label_names())

    def choose_split(self, dataset: PublishedDataset) -> Split | None:
        """The split of a dataset that is probed; None for all of them."""
        if self.split == AUTO:
            return Split.TEST if self.uses_labels and self.is_trained_on(dataset) else None
        return None if self.split == ALL else Split(self.split)

    def is_trained_on(self, dataset: PublishedDataset) -> bool:
        """Whether the run was trained on a dataset, or on another version of it: the same content, or the same place."""
        return self.is_trained_on_version(dataset) or any(is_same_place(dataset.bucket.url, url) for url in self.sources)

    def is_trained_on_version(self, dataset: PublishedDataset) -> bool:
        """Whether the run was trained on this very version of a dataset, wherever it lies now."""
        return any(dataset.manifest.digest == one["manifest"] for one in self.datasets)


def read_sources(run: Bucket) -> tuple[str, ...]:
    """Read the URLs of the datasets that a run was started with; none if its configuration is damaged."""
    with contextlib.suppress(DocumentError, StorageError):
        return read_run_config(run).sources
    return ()
