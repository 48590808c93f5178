"""Several datasets as one source of batches."""

from __future__ import annotations

from collections.abc import Mapping

from crossdim.storage_schema.errors import UsageError
from crossdim.training.api.dataset import Dataset
from crossdim.training.api.loader import Loader, Transform
from crossdim.training.data.mixture import integer_weights


class Mix:
    """Several datasets and the share that each has of the samples. Made by :func:`crossdim.mix`.

    Attributes:
        datasets: in the order in which they were given.
        weights: of each.
    """

    def __init__(self, weights: Mapping[Dataset, float]) -> None:
        self.datasets, self.weights = tuple(weights), tuple(weights.values())
        integer_weights(self.weights)

    def __len__(self) -> int:
        """Samples of all datasets together."""
        return sum(map(len, self.datasets))

    def loader(
        self,
        batch_size: int,
        crop: tuple[int, ...] | None = None,
        transform: Transform | None = None,
        shuffle: bool = True,
        seed: int = 0,
        threads: int = 4,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
    ) -> Loader:
        """Batches that hold samples of all datasets, by weight; see :class:`Loader`.

        Args:
            batch_size: samples of a batch over all ranks together.
            crop: sides of a box, voxels or pixels along the spatial axes; None takes whole images.
            transform: called with the cropped image and the generator of its position; returns the image.
            shuffle: whether each pass has an order of its own; otherwise samples come in the catalogs' order.
            seed: of order, crops and transforms.
            threads: that read and decode.
            rank: of this process, from 0.
            world: number of processes.
            drop_last: leave out the last batch of a pass if it is not full.

        Returns:
            An iterable of batches, at the start of its first pass.
        """
        return Loader(
            self.datasets,
            self.weights,
            batch_size=batch_size,
            crop=crop,
            transform=transform,
            shuffle=shuffle,
            seed=seed,
            threads=threads,
            rank=rank,
            world=world,
            drop_last=drop_last,
        )

    def __repr__(self) -> str:
        shares = (
            f"  {weight / sum(self.weights):.3f}  {dataset.name}, {len(dataset)} samples at {dataset.url}"
            for dataset, weight in zip(self.datasets, self.weights, strict=True)
        )
        return "\n".join((f"Mix of {len(self.datasets)} datasets, {len(self)} samples", *shares))


def mix(weights: Mapping[Dataset, float]) -> Mix:
    """Several datasets as one source of batches.

    Args:
        weights: for each dataset its share of the samples; only proportions count. Exact in every cycle of the mixture, as
            in pretraining.

    Raises:
        RunError: if there is none, a weight is no positive number, or one dataset has less than a millionth.
        UsageError: if ``weights`` is no mapping, or something else than an opened dataset is named.
    """
    if not isinstance(weights, Mapping):
        raise UsageError(f"mix takes weights by dataset, such as {{dataset: 0.6, other: 0.4}}; found {type(weights).__name__}")
    for dataset in weights:
        if not isinstance(dataset, Dataset):
            raise UsageError(f"mix takes datasets as crossdim.open returns them; found {type(dataset).__name__}")
    return Mix(weights)
