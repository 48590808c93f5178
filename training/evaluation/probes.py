"""Probes: classifiers on frozen features, compared with the same classifiers on the features of untrained baselines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from crossdim.storage_schema.errors import RunError
from crossdim.training.evaluation.classification import balanced_accuracy
from crossdim.training.evaluation.features import Labelled
from crossdim.training.show.evaluation import ProbeResult

#: The smallest number of neighbours of DINOv2, which uses 10, 20, 100 and 200.
NEIGHBOURS = 10
#: Softmax over neighbours; code, DINOv2.
TEMPERATURE = 0.07
REPEATS = 3

Features = npt.NDArray[np.float32]
Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def classifiers(num_train: int) -> dict[str, BaseEstimator]:
    """The probes, untrained, by name.

    knn: DINOv2's rule. The nearest neighbours by cosine vote for their classes, weighted by softmax(cosine / 0.07) over the
    neighbours; the class with most votes wins. There are 10 neighbours, and below 100 samples as many as the square root of
    their number, rounded up, so that in a small set the largest class does not outvote all others (ours).

    linear: logistic regression with balanced class weights, on features standardised with the statistics of the training part.
    """
    count = min(NEIGHBOURS, math.ceil(math.sqrt(num_train)))
    # Distances are 1 - cosine, so features need not be normalised first.
    nearest = KNeighborsClassifier(n_neighbors=count, metric="cosine", algorithm="brute", weights=_votes)
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    return {"knn": nearest, "linear": linear}


def _votes(distances_NK: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Weights of the neighbours' votes; the nearest first."""
    return np.asarray(softmax((1 - distances_NK.astype(np.float64)) / TEMPERATURE, axis=1))


def _patients(data: Labelled) -> dict[str, int]:
    """Number of patients of each class."""
    return {name: len(set(data.patients[data.labels == name].tolist())) for name in data.names}


def count_usable_folds(data: Labelled, folds: int) -> int:
    """Number of parts of the cross-validation: at most the number of patients of the smallest class.

    Args:
        data: with patients.
        folds: that were asked for.

    Returns:
        Number of parts, at most ``folds``.
    """
    return min(folds, *_patients(data).values())


def split_folds(data: Labelled, folds: int) -> list[Fold]:
    """Train and test indices: stratified by class, grouped by patient, repeated with different draws.

    A fold that lacks a class in its training or test part is left out: its figure would be over other classes.

    Args:
        data: with labels and patients.
        folds: parts of the cross-validation.

    Returns:
        (train, test) indices of each fold and repetition.

    Raises:
        RunError: if a class has too few patients to be in both parts.
    """
    patients = _patients(data)
    usable = count_usable_folds(data, folds)
    if usable < 2:
        raise RunError(f"{data.name}: a probe needs 2 patients in every class; found {patients}")
    draws = (StratifiedGroupKFold(usable, shuffle=True, random_state=seed) for seed in range(REPEATS))
    every = [fold for draw in draws for fold in draw.split(data.x_NC, data.labels, data.patients)]
    whole = [fold for fold in every if all(set(data.labels[part].tolist()) == set(data.names) for part in fold)]
    if not whole:
        raise RunError(f"{data.name}: none of {len(every)} folds has every class on both sides; patients of each: {patients}")
    return whole


def compute_scores(probe: str, x_NF: Features, data: Labelled, folds: Sequence[Fold]) -> npt.NDArray[np.float64]:
    """Balanced accuracy of a probe on the test part of each fold.

    Args:
        probe: name in :func:`classifiers`.
        x_NF: features.
        data: labels.
        folds: of :func:`split_folds`.

    Returns:
        (folds,).
    """
    return np.array([_score(probe, x_NF, data, train, test) for train, test in folds])


def _score(probe: str, x_NF: Features, data: Labelled, train: npt.NDArray[np.int64], test: npt.NDArray[np.int64]) -> float:
    reader = classifiers(len(train))[probe].fit(x_NF[train], data.labels[train])
    return balanced_accuracy(data.labels[test], reader.predict(x_NF[test]))


class ProbeComparison:
    """Scores of untrained encoders on one dataset, computed once, with which any number of encoders is compared.

    Args:
        data: labels and patients.
        baselines: (N, F) features of each untrained encoder.
        folds: parts of the cross-validation.
    """

    def __init__(self, data: Labelled, baselines: Sequence[Features], folds: int) -> None:
        self.data, self._parts = data, split_folds(data, folds)
        self._untrained = {
            probe: np.stack([compute_scores(probe, baseline, data, self._parts) for baseline in baselines])
            for probe in classifiers(len(data.labels))
        }

    def compare(self, trained: Features) -> list[ProbeResult]:
        """Run every probe on the features of an encoder, over the folds of the baselines.

        Args:
            trained: (N, F).

        Returns:
            One result for each probe.
        """
        return [
            _result(self.data, probe, compute_scores(probe, trained, self.data, self._parts), untrained)
            for probe, untrained in self._untrained.items()
        ]


def _result(data: Labelled, probe: str, trained: npt.NDArray[np.float64], untrained: npt.NDArray[np.float64]) -> ProbeResult:
    differences = trained[None] - untrained
    return ProbeResult(
        dataset=data.name,
        presentation=data.presentation,
        probe=probe,
        num_samples=len(data.labels),
        num_patients=len(set(data.patients.tolist())),
        num_unknown_patients=data.num_unknown,
        num_classes=len(data.names),
        num_folds=len(trained),
        trained=float(trained.mean()),
        trained_spread=float(trained.std()),
        untrained=float(untrained.mean()),
        untrained_spread=float(untrained.std()),
        difference=float(differences.mean()),
        spread=float(differences.std()),
    )
