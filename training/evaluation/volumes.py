"""Volumes reassembled from their superpatches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from crossdim.storage_schema.vocabulary import Split
from crossdim.training.data.dataset import PublishedDataset, read_sample
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.evaluation.reconstruction import Volume


def find_held_out(dataset: PublishedDataset) -> tuple[Split, list[str]]:
    """The split from which volumes are reconstructed, and their sources: test, or train if no volume was held out."""
    pairs = list(zip(dataset.column("split"), dataset.column("source_uri"), strict=True))
    split = Split.TEST if any(found == Split.TEST for found, _ in pairs) else Split.TRAIN
    return split, sorted({str(source) for found, source in pairs if found == split})


def assemble_volumes(dataset: PublishedDataset, sources: list[str]) -> Iterator[Volume]:
    """Assemble each source's volume from its superpatches, up to the end of its last boxes; boxes that were left out are air.

    Args:
        dataset: of superpatches, every split.
        sources: URIs, as the catalog has them.

    Yields:
        One volume for each source, (1, D, H, W) in stored values.
    """
    reader = open_range_reader(dataset.bucket)
    origins: Any = dataset.column("origin_zyx")
    rows: dict[str, list[int]] = {}
    for index, source in enumerate(dataset.column("source_uri")):
        rows.setdefault(str(source), []).append(index)
    for source in sources:
        samples = [read_sample(dataset, index, reader) for index in rows[source]]
        side = samples[0].array.shape[-1]
        grid = np.max([origins[index] for index in rows[source]], axis=0) + side
        volume = Volume(name=source, array_CDHW=np.zeros((1, *grid), samples[0].array.dtype), scaling=samples[0].scaling)
        volume.array_CDHW[...] = round(volume.air)
        for index, sample in zip(rows[source], samples, strict=True):
            d, h, w = origins[index]
            volume.array_CDHW[:, d : d + side, h : h + side, w : w + side] = sample.array
        yield volume
