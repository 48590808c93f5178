"""Batches of one dataset or several, in an order that follows from a seed and a position.

The order is that of pretraining (:mod:`crossdim.training.data.order`): the whole state is the number of samples that all ranks
together have been given, so a loader goes on exactly where another one stopped, with any number of ranks and threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Protocol, SupportsIndex

import numpy as np
import numpy.typing as npt
from torch import Tensor, tensor
from torch.utils.data import IterableDataset, get_worker_info

from crossdim.storage_schema.errors import GeometryError, RunError, UsageError
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.api.batch import Floats, crop_array, stack_and_pad
from crossdim.training.api.sample import UNLABELLED, DatasetSample
from crossdim.training.data.mixture import integer_weights
from crossdim.training.data.order import DatasetOrder, Order, rng_at

#: Changes one image: (C, ...) float32 in unit range, and the generator of its position, the only chance it should use.
Transform = Callable[[Floats, np.random.Generator], "npt.NDArray[Any] | Tensor"]
#: Batches that are read ahead of the one in use.
AHEAD = 2


class Samples(Protocol):
    """What a loader needs of a dataset; see :class:`crossdim.training.api.dataset.Dataset`."""

    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def presentation(self) -> Presentation:
        """What its samples are."""

    @property
    def identity(self) -> dict[str, str | None]:
        """Equal for equal bytes in equal order."""

    @property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Stored shape of each sample, (N, axes)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex) -> DatasetSample: ...


class Loader(IterableDataset[dict[str, Any]]):
    """Batches as dicts. Made by :meth:`Dataset.loader` and :meth:`Mix.loader`.

    One ``for`` loop over it is the rest of a pass. A pass over one dataset gives each sample once; a pass over a mixture is as
    many samples as its datasets hold together, taken by weight. The next loop is the next pass, in another order.

    A batch holds
        ``image``: float32 (B, C, H, W) or (B, C, D, H, W), unit range;
        ``size``: int64 (B, axes), sides of each image before zeros were added behind its ends;
        ``label``: int64 (B,), number of the class in :attr:`classes`, -1 where there is none;
        ``key``: list of B texts;
        ``pseudo3d``: list of B geometries; None for what is no pseudo-3D image.

    Images of unequal size are filled up with zeros behind their ends: with ``crop`` to its sides, otherwise to the largest of
    the whole batch, over all ranks; what a ``transform`` returns, to the largest of this rank.

    Under ``torch.utils.data.DataLoader(loader, batch_size=None, num_workers=n)`` worker ``w`` makes the batches w, w + n,
    ..., and they arrive in the same order as without workers. Workers hold copies: the position of this object stays, so call
    :meth:`set_epoch` before each pass then. A loader reads ahead in threads of its own, so workers are rarely needed.

    Args:
        datasets: one, or those of a mixture.
        weights: shares of the samples of each.
        batch_size: samples of a batch over all ranks together; each rank gets an equal part, to within one sample.
        crop: sides of a box, voxels or pixels along the spatial axes; at random with ``shuffle``, else from the middle.
        transform: called with the cropped image and the generator of its position; returns the image, of any size.
        shuffle: whether each pass has an order of its own; otherwise samples come as they stand in the catalog.
        seed: of order, crops and transforms.
        threads: that read and decode.
        rank: of this process.
        world: number of processes.
        drop_last: leave out the last batch of a pass if it is not full.

    Attributes:
        classes: names of the labels, sorted, over all datasets.

    Raises:
        UsageError: if an argument makes no sense.
        GeometryError: if the datasets do not fit into one tensor, or ``crop`` does not fit the datasets.
    """

    def __init__(
        self,
        datasets: Sequence[Samples],
        weights: Sequence[float],
        *,
        batch_size: int,
        crop: tuple[int, ...] | None,
        transform: Transform | None,
        shuffle: bool,
        seed: int,
        threads: int,
        rank: int,
        world: int,
        drop_last: bool,
    ) -> None:
        super().__init__()
        self._datasets, self._weights = tuple(datasets), tuple(integer_weights(weights))
        self._batch_size, self._threads, self._rank, self._world = batch_size, threads, rank, world
        self._crop, self._transform, self._shuffle, self._seed = crop, transform, shuffle, seed
        self._pass = sum(map(len, datasets))
        self._drop_last, self._position = drop_last, 0
        self.classes = tuple(sorted({name for dataset in datasets for name in dataset.classes}))
        self._check()
        orders = (
            DatasetOrder(num_samples=len(dataset), weight=weight, shuffled=shuffle)
            for dataset, weight in zip(self._datasets, self._weights, strict=True)
        )
        self._order = Order(seed, tuple(orders))

    def _check(self) -> None:
        size, world = self._batch_size, self._world
        if not (self._threads >= 1 and 0 <= self._rank < world and 0 <= self._seed < 2**63):
            raise UsageError(
                "a loader needs threads >= 1, 0 <= rank < world and 0 <= seed < 2**63; found "
                f"threads={self._threads}, rank={self._rank}, world={world}, seed={self._seed}"
            )
        if size < world:
            raise UsageError(f"batch_size counts the samples of all ranks, at least one each; found {size} for {world} ranks")
        last = self._pass % size
        if self._drop_last and self._pass < size:
            raise UsageError(f"a pass has {self._pass} samples, no full batch of {size}: nothing is left with drop_last")
        if 0 < last < world and not self._drop_last:
            raise UsageError(
                f"the last of {self._pass} samples in batches of {size} are {last}, fewer than {world} ranks; choose another "
                "batch_size, or drop_last=True"
            )
        axes = {dataset.shapes.shape[1] - 1 for dataset in self._datasets}
        if len(axes) > 1:
            listed = ", ".join(f"{dataset.name}: {dataset.presentation}" for dataset in self._datasets)
            raise GeometryError(f"images and volumes do not fit into one tensor ({listed}); use a loader for each")
        if self._crop is not None and (len(self._crop) not in axes or min(self._crop) < 1):
            raise GeometryError(f"crop has a side of at least 1 for each of {axes.pop()} spatial axes; found {self._crop}")

    def __len__(self) -> int:
        """Batches of a whole pass."""
        return self._pass // self._batch_size if self._drop_last else -(-self._pass // self._batch_size)

    @property
    def position(self) -> int:
        """Samples that all ranks together have been given since the first pass began."""
        return self._position

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of a pass, the first of which is 0."""
        if epoch < 0:
            raise UsageError(f"passes are counted from 0; found {epoch}")
        self._position = epoch * self._pass

    def state_dict(self) -> dict[str, Any]:
        """The position, and what it is a position in; plain values, for a checkpoint."""
        return {"position": self._position} | self._identity()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader stopped, which may have had other ranks, threads or batches.

        Raises:
            RunError: if it had other datasets, weights, seed or order, for then a position means something else.
        """
        ours = self._identity()
        for name in ("position", *ours):
            if name not in state:
                raise RunError(f"this is no state of a loader: it has no {name}")
        if differing := [name for name, value in ours.items() if state[name] != value]:
            described = "; ".join(f"{name}: {state[name]} then, {ours[name]} now" for name in differing)
            raise RunError(f"the state is of a loader of other samples or another order, and cannot be resumed ({described})")
        self._position = int(state["position"])

    def _identity(self) -> dict[str, Any]:
        return {
            "datasets": [dataset.identity for dataset in self._datasets],
            "weights": list(self._weights),
            "seed": self._seed,
            "shuffle": self._shuffle,
        }

    def _steps(self, first: int) -> Iterator[tuple[int, int]]:
        """First position, and the one behind the last, of each batch from a position to the end of its pass."""
        end = (first // self._pass + 1) * self._pass
        while first < end:
            stop = min(first + self._batch_size, end)
            if not (self._drop_last and stop - first < self._batch_size):
                yield first, stop
            first = stop

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        offset, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        steps = islice(self._steps(self._position), offset, None, stride)
        end = (self._position // self._pass + 1) * self._pass
        if worker is not None:
            self._position = end  # a worker sees its own batches only: whatever becomes of this pass, the next one follows
        with ThreadPoolExecutor(self._threads, thread_name_prefix="samples") as pool:
            pending: deque[tuple[int, _Pending]] = deque()

            def submit() -> None:
                if step := next(steps, None):
                    pending.append((step[1], self._submit(*step, pool)))

            try:
                for _ in range(AHEAD + 1):
                    submit()
                while pending:
                    stop, batch = pending.popleft()
                    ready = self._batch(batch)
                    submit()
                    if worker is None:
                        self._position = stop if pending else end  # also behind what drop_last leaves out
                    yield ready
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, first: int, stop: int, pool: ThreadPoolExecutor) -> _Pending:
        positions = np.arange(first, stop, dtype=np.int64)
        numbers, samples = self._order.locate(positions)
        count, rank, world = len(positions), self._rank, self._world
        mine = range(rank * count // world, (rank + 1) * count // world)
        futures = [pool.submit(self._read, int(numbers[i]), int(samples[i]), int(positions[i])) for i in mine]
        if self._transform is not None:
            return futures, ()
        if self._crop is not None:
            return futures, self._crop
        sides = [self._datasets[n].shapes[i, 1:] for n, i in zip(numbers, samples, strict=True)]
        return futures, tuple(np.max(sides, axis=0).tolist())

    def _read(self, number: int, index: int, position: int) -> tuple[Floats, DatasetSample]:
        sample = self._datasets[number][index]
        image, rng = sample.unit(), rng_at(self._seed, position)
        if self._crop is not None:
            image = crop_array(image, self._crop, rng if self._shuffle else None)
        if self._transform is not None:
            image = np.asarray(self._transform(image, rng), np.float32)
        return image, sample

    def _batch(self, pending: _Pending) -> dict[str, Any]:
        futures, sides = pending
        images, samples = zip(*(future.result() for future in futures), strict=True)
        image, size = stack_and_pad(images, sides)
        return {
            "image": image,
            "size": size,
            "label": tensor([UNLABELLED if s.label is None else self.classes.index(s.label) for s in samples]),
            "key": [sample.key for sample in samples],
            "pseudo3d": [sample.pseudo3d for sample in samples],
        }

    def __repr__(self) -> str:
        names = ", ".join(f"{dataset.name} ({weight})" for dataset, weight in zip(self._datasets, self._weights, strict=True))
        return (
            f"Loader of {names}: {len(self)} batches of {self._batch_size} a pass, rank {self._rank} of {self._world}, "
            f"at position {self._position}"
        )


_Pending = tuple[list[Future[tuple[Floats, DatasetSample]]], tuple[int, ...]]
