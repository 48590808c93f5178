"""Notes on the datasets of an evaluation: what a reader of its figures has to know. Each is a sentence, or empty."""

from __future__ import annotations

from crossdim.foundation.counts import count, list_some
from crossdim.foundation.manifest_file import find_version_number
from crossdim.storage_schema.vocabulary import Split
from crossdim.training.data.dataset import PublishedDataset
from crossdim.training.evaluation.evaluated_run import EvaluatedRun
from crossdim.training.evaluation.features import Labelled, classes
from crossdim.training.evaluation.probes import count_usable_folds
from crossdim.training.split_choice import ALL, AUTO

#: Names of classes in one note.
SHOWN_CLASSES = 10


def describe_preparation(dataset: PublishedDataset, evaluated: EvaluatedRun) -> str:
    """Describe that a dataset was prepared differently from those that the encoder was trained on.

    Args:
        dataset: that is evaluated.
        evaluated: the run.

    Returns:
        A sentence; empty if it was not.
    """
    if dataset.manifest.preprocessing_digest in {one["preprocessing"] for one in evaluated.datasets}:
        return ""
    return f"{dataset.name} was prepared differently from the encoder's training data; its figures mix both effects."


def describe_version(dataset: PublishedDataset, evaluated: EvaluatedRun) -> str:
    """Describe that another version of a dataset is evaluated than the run was trained on.

    Args:
        dataset: that is evaluated.
        evaluated: the run.

    Returns:
        A sentence; empty if it is the same version, or another dataset.
    """
    if evaluated.is_trained_on_version(dataset) or not evaluated.is_trained_on(dataset):
        return ""
    number = find_version_number(dataset.bucket, dataset.manifest)
    return f"{dataset.name}: version {number} is evaluated; the run was trained on another one (--data-version chooses one)."


def describe_left_out(dataset: PublishedDataset) -> str:
    """Describe that classes are left out because they have a single patient; empty if there are none."""
    labels, (_, single) = dataset.column("label"), classes(dataset)
    if not single:
        return ""
    lost, labelled = (sum(label in names for label in labels) for names in (single, {*labels} - {None}))
    samples = f"{lost} of {count(labelled, 'labelled sample')}"
    return f"{dataset.name}: classes with a single patient were left out, {samples}: {list_some(single, SHOWN_CLASSES)}."


def describe_trained(data: Labelled, evaluated: EvaluatedRun, dataset: PublishedDataset) -> str:
    """Describe that the encoder was trained on samples that are probed.

    Args:
        data: that are probed.
        evaluated: the run.
        dataset: that they are of.

    Returns:
        A sentence; empty if it was not.
    """
    if not data.num_trained or not evaluated.is_trained_on(dataset):
        return ""
    labelled = ", and on their labels" if evaluated.uses_labels else ""
    held_out = f"; --split {Split.TEST} probes the other samples only" if data.num_trained < len(data.labels) else ""
    return f"{data.name}: the encoder was trained on {data.num_trained} of the {len(data.labels)} samples{labelled}{held_out}."


def describe_folds(data: Labelled, folds: int) -> str:
    """Describe that the patients allow fewer folds than were asked for.

    Args:
        data: that are probed.
        folds: that were asked for.

    Returns:
        A sentence; empty if all folds are used.
    """
    used = count_usable_folds(data, folds)
    if used == folds:
        return ""
    groups = count(used, "input" if data.num_unknown else "patient")
    return f"{data.name}: {used} folds were used, and not {folds}: its smallest class has {groups}."


def describe_unprobed(dataset: PublishedDataset, split: Split | None, evaluated: EvaluatedRun) -> str:
    """Describe why a dataset was not probed, and what would change that.

    Args:
        dataset: the samples that might have been probed.
        split: of these; None if they are all.
        evaluated: the run.

    Returns:
        A sentence.
    """
    name = dataset.name
    if split is not None and evaluated.split == AUTO:
        return (
            f"{name} was not probed: the encoder was trained with its labels, and too few samples were held out "
            f"(prepare --test-fraction); --split {ALL} probes all, and measures also what the encoder has memorised."
        )
    if split is not None and not len(dataset):
        return f"{name} holds no sample of split {split} and was not probed; --split {ALL} probes all."
    if split is not None and any(dataset.column("label")):
        return f"{name} has no two classes of at least two patients in split {split}; --split {ALL} probes all."
    if any(dataset.column("label")):
        return f"{name} has no two classes of at least two patients and was not probed."
    remedy = "prepare it again with --label folder, or with --labels FILE.csv --label-column NAME, to another --out"
    return f"{name} has no labels and was not probed; {remedy}."
