"""One sample of a published dataset, as ``dataset[i]`` returns it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.storage_schema.sample import Array, Scaling
from crossdim.storage_schema.vocabulary import Modality, Presentation, Split

#: The number of a sample without a label, which ``torch.nn.functional.cross_entropy`` takes as ``ignore_index``.
UNLABELLED = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class DatasetSample(Mapping[str, Any]):
    """One sample of a dataset.

    As a mapping it is what a batch holds of it: ``image`` (float32, unit range), ``label`` (the number of its class) and
    ``key``. So ``torch.utils.data.DataLoader(dataset)`` collates samples without a function of its own.

    Attributes:
        key: 32 hex digits, unique in the dataset.
        array: stored values, (C, H, W) for images, (C, D, H, W) for pseudo-3D images and superpatches.
        label: name of the class; None where the dataset states none.
        class_index: number of the class in :attr:`Dataset.classes`; -1 where there is no label.
        spacing_mm: voxel size along the spatial axes of ``array``; None where it is unknown, or depth is no length.
        modality: such as ``CT`` or ``XR``.
        presentation: ``image``, ``pseudo3d`` or ``superpatch``.
        scaling: what stored values mean; see :meth:`unit` and :meth:`physical`.
        split: ``train`` or ``test``.
        patient: pseudonym of the patient, or of the source where no patient is known.
        source: the raw file, as the catalog names it.
        pseudo3d: geometry of a pseudo-3D image; None for others.
    """

    key: str
    array: Array
    label: str | None
    class_index: int
    spacing_mm: tuple[float, ...] | None
    modality: Modality
    presentation: Presentation
    scaling: Scaling
    split: Split
    patient: str
    source: str
    pseudo3d: Pseudo3D | None

    def unit(self) -> npt.NDArray[np.float32]:
        """The array in unit range, 0..1, as networks are trained on it."""
        return self.scaling.unit(self.array)

    def physical(self) -> npt.NDArray[np.float32]:
        """The array in physical units: HU for CT."""
        return self.scaling.physical(self.array)

    def __getitem__(self, name: str) -> Any:
        if name == "image":
            return self.unit()
        if name == "label":
            return self.class_index
        if name == "key":
            return self.key
        raise KeyError(f"a sample as a mapping holds image, label and key; found {name!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(("image", "label", "key"))

    def __len__(self) -> int:
        return 3

    # As objects, and not by their pixels: an array that equals another is an array of answers.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return (
            f"DatasetSample(key={self.key!r}, presentation={self.presentation.value!r}, modality={self.modality.value!r}, "
            f"shape={self.array.shape}, dtype={self.array.dtype}, label={self.label!r}, spacing_mm={self.spacing_mm})"
        )
