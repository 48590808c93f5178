"""Features of the labelled samples of a dataset from a frozen encoder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crossdim.storage_schema.patient import known_patient
from crossdim.storage_schema.vocabulary import Split
from crossdim.training.data.dataset import PublishedDataset, read_sample
from crossdim.training.data.range_reader import open_range_reader
from crossdim.training.layers.statistics import recompute_statistics
from crossdim.training.methods.base import MethodConfig

BATCH = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Inputs of the labelled samples of one dataset, as an encoder takes them.

    Attributes:
        name: of the dataset.
        presentation: of its samples.
        x_NC: float32, (N, C, D, H, W), or (N, C, H, W) for encoders that take images as they are.
        labels: class of each sample.
        patients: of each sample; all samples of a patient are in the same fold.
        num_unknown: of the patients; each is an input whose patient is not known.
        num_trained: samples of split ``train``.
    """

    name: str
    presentation: str
    x_NC: npt.NDArray[np.float32]
    labels: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    num_unknown: int = 0
    num_trained: int = 0

    @property
    def names(self) -> list[str]:
        """Class names, sorted."""
        return sorted(set(self.labels.tolist()))


def classes(dataset: PublishedDataset) -> tuple[list[str], list[str]]:
    """Classes with at least two patients, which can be both trained on and held out, and classes with one, which cannot."""
    patients: dict[str, set[object]] = {}
    for label, patient in zip(dataset.column("label"), dataset.column("patient"), strict=True):
        if label is not None:
            patients.setdefault(str(label), set()).add(patient)
    names = sorted(patients)
    return [n for n in names if len(patients[n]) > 1], [n for n in names if len(patients[n]) == 1]


def read_labelled(dataset: PublishedDataset, method: MethodConfig, threads: int = 2) -> Labelled | None:
    """Read the labelled samples of a dataset.

    Args:
        dataset: the samples that may be probed.
        method: decides how a sample becomes an input of the encoder.
        threads: that read samples.

    Returns:
        The inputs of all classes of at least two patients; None if there are fewer than two such classes.
    """
    labels, patients = dataset.column("label"), dataset.column("patient")
    kept, _ = classes(dataset)
    if len(kept) < 2:
        return None
    chosen = [i for i, label in enumerate(labels) if label in kept]
    rows = dataset.table.select(["patient", "source_sha256", "split"]).take(chosen).to_pylist()
    reader = open_range_reader(dataset.bucket)

    def x_of(index: int) -> npt.NDArray[np.float32]:
        return method.whole(read_sample(dataset, index, reader), dataset.pseudo3d)["x"]

    with ThreadPoolExecutor(threads) as pool:
        inputs = list(pool.map(x_of, chosen))
    return Labelled(
        name=dataset.name,
        presentation=str(dataset.manifest.presentation),
        x_NC=np.stack(inputs),
        labels=np.array([str(labels[i]) for i in chosen]),
        patients=np.array([str(patients[i]) for i in chosen]),
        num_unknown=len({row["patient"] for row in rows if known_patient(row) is None}),
        num_trained=sum(row["split"] == Split.TRAIN for row in rows),
    )


@torch.no_grad()
def compute_features(encoder: nn.Module, x_NC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean of the deepest feature map over space, with batch-norm statistics of these inputs.

    Args:
        encoder: left as it is.
        x_NC: inputs, (N, C, D, H, W) or (N, C, H, W).

    Returns:
        (N, F).
    """
    # Shuffled, always in the same way: statistics are means over parts, and parts of neighbours in a catalog, which are similar,
    # would miss the variance between them. Equal parts, because batch norm of a single sample is undefined.
    mixed = np.random.default_rng(0).permutation(len(x_NC))
    parts = torch.from_numpy(x_NC[mixed]).tensor_split(-(-len(x_NC) // BATCH))
    fresh = recompute_statistics(encoder, lambda copy: copy, parts)
    found = torch.cat([fresh(part).flatten(2).mean(dim=2) for part in parts]).numpy()
    return np.asarray(found[np.argsort(mixed)])
