"""A published dataset as a Python object: its samples by number, its catalog as a table, and loaders of batches."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crossdim.storage_schema.errors import RunError, UsageError, describe_unknown_name
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.vocabulary import Presentation, Split
from crossdim.training.api.sample import UNLABELLED, DatasetSample
from crossdim.training.api.store import open_bucket_at
from crossdim.training.data.dataset import PublishedDataset, read_sample
from crossdim.training.data.dataset import open_dataset as open_published
from crossdim.training.data.range_reader import RangeReader, open_range_reader

if TYPE_CHECKING:
    from crossdim.training.api.loader import Loader, Transform

_FORMS = {Presentation.IMAGE: "images", Presentation.PSEUDO3D: "pseudo-3D images", Presentation.SUPERPATCH: "superpatches"}


class Dataset:
    """The samples of one split of a published dataset, in the order of its catalog. Made by :func:`crossdim.open`.

    ``len(dataset)`` is the number of samples, ``dataset[i]`` reads one; negative numbers count from the end, and slices are
    refused (``torch.utils.data.Subset`` takes any numbers). It can be pickled, and used in processes forked from this one.

    Attributes:
        classes: names of the labels in the whole dataset, sorted, whatever the split: their numbers are labels in batches.
    """

    def __init__(self, published: PublishedDataset, split: Split | None, classes: tuple[str, ...]) -> None:
        self._published, self._split, self.classes = published, split, classes
        self._numbers = {name: number for number, name in enumerate(classes)}

    @property
    def name(self) -> str:
        """The name that the dataset was published under."""
        return self._published.manifest.name

    @property
    def url(self) -> str:
        """Where the dataset lies, without secrets."""
        return self._published.bucket.where("")

    @property
    def split(self) -> str | None:
        """The split that was opened; None for all samples."""
        return None if self._split is None else self._split.value

    @property
    def presentation(self) -> Presentation:
        """``image``, ``pseudo3d`` or ``superpatch``."""
        return self._published.manifest.presentation

    @property
    def pseudo3d(self) -> Pseudo3D | None:
        """Geometry of stored pseudo-3D images; None for superpatches."""
        return self._published.pseudo3d

    @property
    def table(self) -> pa.Table:
        """The catalog of these samples, one row each, as a pyarrow table; row ``i`` belongs to ``dataset[i]``."""
        return self._published.table

    @property
    def identity(self) -> dict[str, str | None]:
        """Name, digest of the manifest and split: two datasets of equal identity hold equal bytes in equal order."""
        return {"name": self.name, "manifest": self._published.manifest.digest, "split": self.split}

    @cached_property
    def shapes(self) -> npt.NDArray[np.int64]:
        """Stored shape of each sample, (N, 3) for images and (N, 4) otherwise; from the catalog, nothing is read."""
        flat = self.table["shape"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, np.int64).reshape(len(self), -1)

    @cached_property
    def _reader(self) -> RangeReader:
        return open_range_reader(self._published.bucket)

    def __getstate__(self) -> dict[str, Any]:
        # Open files and clients stay here; another process opens its own.
        return {name: value for name, value in self.__dict__.items() if name != "_reader"}

    def __len__(self) -> int:
        return len(self._published)

    def __getitem__(self, index: SupportsIndex) -> DatasetSample:
        """Read one sample: one range request, checked against its crc32c.

        Raises:
            IndexError: if there are not so many samples.
            TypeError: for anything but a whole number.
            StorageError: if the store fails, or the bytes are not those that were published, twice in a row.
        """
        if isinstance(index, slice):
            raise TypeError(
                "a dataset is read one sample at a time: for several, use torch.utils.data.Subset(dataset, numbers) or a loader, "
                "and for their rows dataset.table.slice(first, count)"
            )
        requested = operator.index(index)
        number = requested + len(self) if requested < 0 else requested
        if not 0 <= number < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, 0 to {len(self) - 1}; found number {requested}")
        sample = read_sample(self._published, number, self._reader)
        row = {name: self.table[name][number].as_py() for name in ("spacing_mm", "split", "patient")}
        return DatasetSample(
            key=sample.key,
            array=sample.array,
            label=sample.label,
            class_index=UNLABELLED if sample.label is None else self._numbers[sample.label],
            spacing_mm=None if row["spacing_mm"] is None else tuple(row["spacing_mm"]),
            modality=sample.modality,
            presentation=self.presentation,
            scaling=sample.scaling,
            split=Split(row["split"]),
            patient=row["patient"],
            source=sample.origin.uri,
            pseudo3d=self.pseudo3d if self.presentation is Presentation.PSEUDO3D else None,
        )

    def __iter__(self) -> Iterator[DatasetSample]:
        return (self[number] for number in range(len(self)))

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
        """Batches of these samples as dicts of tensors; see :class:`crossdim.training.api.loader.Loader`.

        Args:
            batch_size: samples of a batch over all ranks together.
            crop: sides of a box, voxels or pixels along the spatial axes; None takes whole images.
            transform: called with the cropped image and the generator of its position; returns the image.
            shuffle: whether each pass has an order of its own; otherwise samples come in the catalog's order.
            seed: of order, crops and transforms.
            threads: that read and decode.
            rank: of this process, from 0.
            world: number of processes.
            drop_last: leave out the last batch of a pass if it is not full.

        Returns:
            An iterable of batches, at the start of its first pass.
        """
        from crossdim.training.api.loader import Loader

        return Loader(
            (self,),
            (1.0,),
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
        split = "all splits" if self.split is None else f"split {self.split}"
        least, most = self.shapes.min(axis=0).tolist(), self.shapes.max(axis=0).tolist()
        sides = ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(least, most, strict=True))
        labels = Counter("(none)" if label is None else label for label in self.table["label"].to_pylist())
        lines = [
            f"Dataset {self.name!r} at {self.url}: {len(self)} {_FORMS[self.presentation]}, {split}",
            f"  shape   ({sides}), {', '.join(_list_distinct(self.table, 'dtype'))}",
            f"  imaged  {', '.join(_list_distinct(self.table, 'modality'))}",
            f"  labels  {_format_counts(labels)}",
        ]
        return "\n".join(lines)


def _list_distinct(table: pa.Table, name: str) -> list[str]:
    return sorted(np.dtype(v).name if name == "dtype" else v for v in pc.unique(table[name]).to_pylist())


def _format_counts(labels: Counter[str], most: int = 8) -> str:
    """Names with their numbers, the commonest first."""
    shown = ", ".join(f"{name}: {count}" for name, count in labels.most_common(most))
    return f"{shown} and {len(labels) - most} more" if len(labels) > most else shown


def open_dataset(
    url: str | PathLike[str],
    split: Literal["train", "test"] | None = "train",
    *,
    version: int | None = None,
    **store_options: Any,
) -> Dataset:
    """Open a published dataset.

    Args:
        url: a folder or any fsspec URL that ``crossdim prepare`` has published to.
        split: ``train``, ``test``, or None for every sample.
        version: of the dataset, where files were added to it later; None for the newest.
        **store_options: ``endpoint_url``, ``credentials_file``, ``access_key`` with ``secret_key``, ``region``,
            ``anonymous``: as the options of the command line. Without them, credentials come from the environment, the
            profile or the role of this machine.

    Returns:
        The samples of the split, by number; nothing but the manifest and the catalog is read yet.

    Raises:
        UsageError: for a split, a version or a store option that does not exist.
        StorageError: if nothing is published there, or the store does not answer.
        RunError: if the split holds no sample.
    """
    if split is not None and split not in list(Split):
        raise UsageError(describe_unknown_name("split", str(split), list(Split)))
    chosen = None if split is None else Split(split)
    published = open_published(open_bucket_at(url, store_options), split=None, version=version)
    classes = tuple(sorted(label for label in pc.unique(published.table["label"]).to_pylist() if label is not None))
    if chosen is not None:
        table = published.table.filter(pc.equal(published.table["split"], chosen.value))
        if not table.num_rows:
            raise RunError(
                f"{published.bucket.where('')} holds no sample of split {chosen}; it has "
                f"{', '.join(_list_distinct(published.table, 'split'))}, and split=None opens all {len(published)} samples. "
                "Patients are held out when a dataset is prepared with --test-fraction"
            )
        published = replace(published, table=table)
    return Dataset(published, chosen, classes)
