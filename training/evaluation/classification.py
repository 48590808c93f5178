"""Classification metrics: area under the ROC curve, accuracy and balanced accuracy, the first two as MedMNIST v2 defines them.

Source: Yang et al., MedMNIST v2 (arXiv 2110.14795), and its public evaluator for what the text leaves open: which column of a
binary score is used, and that a score of exactly one half is negative.
Axes: N samples, K classes, L labels of which a sample may have several.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from crossdim.storage_schema.errors import GeometryError, RunError, describe_unknown_name

#: MedMNIST's ordinal task is scored as ``multi-class``.
Task = Literal["binary", "multi-class", "multi-label"]
THRESHOLD = 0.5

Scores = npt.NDArray[np.floating]
Truth = npt.NDArray[np.integer]


def auc(truth: Truth, scores: Scores, task: Task) -> float:
    """Area under the ROC curve; ties count half.

    Binary: of the last column. Multi-class: unweighted mean over classes, each against the rest. Multi-label: unweighted
    mean over labels.

    Args:
        truth: (N,) class numbers from 0, or (N, L) of 0 and 1 for ``multi-label``.
        scores: (N,) or (N, 2) for ``binary``, (N, K), or (N, L); larger is likelier.
        task: meaning of the numbers.

    Returns:
        From 0 to 1; 0.5 is chance.

    Raises:
        GeometryError: if the shapes do not fit the task, or a score is not finite.
        RunError: if a class or label has no sample, or all: it has no curve, and a mean without it would be over other classes.
    """
    is_true_NK, scores_NK = _columns(truth, scores, task)
    counts = is_true_NK.sum(axis=0)
    if not np.all((counts > 0) & (counts < len(truth))):
        raise RunError(f"AUC needs samples inside and outside of every class; found {counts.tolist()} of {len(truth)} inside")
    return float(np.mean([roc_auc_score(is_true_NK[:, k], scores_NK[:, k]) for k in range(scores_NK.shape[1])]))


def accuracy(truth: Truth, scores: Scores, task: Task) -> float:
    """Fraction of correct answers.

    Binary: positive if the last column is above one half. Multi-class: the class with the largest score, the first of equal
    ones. Multi-label: positive above one half, mean over labels; if labels are rare, predicting none is nearly right, so
    use AUC as well.

    Args:
        truth: as for :func:`auc`.
        scores: as for :func:`auc`, but probabilities.
        task: meaning of the numbers.

    Returns:
        From 0 to 1.

    Raises:
        GeometryError: if the shapes do not fit the task, or a score is not finite.
    """
    is_true_NK, scores_NK = _columns(truth, scores, task)
    if task == "multi-class":
        return float(np.mean(scores_NK.argmax(axis=1) == truth))
    return float(np.mean((scores_NK > THRESHOLD) == is_true_NK))


def balanced_accuracy(truth: npt.NDArray[np.generic], answers: npt.NDArray[np.generic]) -> float:
    """Mean of the recall of the classes in ``truth``; chance is 1 / classes.

    Args:
        truth: (N,) class names or numbers.
        answers: (N,), of the same kind; may have classes that ``truth`` lacks.

    Returns:
        From 0 to 1.

    Raises:
        GeometryError: if the shapes differ or there is no sample.
    """
    if truth.shape != answers.shape or truth.ndim != 1 or not len(truth):
        raise GeometryError(f"expected a class (N,) and an answer (N,) of each sample; found {truth.shape} and {answers.shape}")
    _, classes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    return float(np.mean(np.bincount(classes, weights=truth == answers) / counts))


def _columns(truth: Truth, scores: Scores, task: Task) -> tuple[npt.NDArray[np.bool_], Scores]:
    """Every class or label as a binary question: (N, K) answers and scores; a binary task has one column."""
    if task not in get_args(Task):
        raise GeometryError(describe_unknown_name("task", task, get_args(Task)))
    columns = scores[:, None] if scores.ndim == 1 and task == "binary" else scores
    if task == "binary":
        columns = columns[:, -1:]
    shape = columns.shape if task == "multi-label" else columns.shape[:1]
    classes = 2 if task != "multi-class" else columns.shape[-1]
    fits = columns.ndim == 2 and truth.shape == shape and len(truth) > 0 and truth.min() >= 0 and truth.max() < classes
    if not fits or not np.isfinite(columns).all():
        raise GeometryError(
            f"{task}: truth {truth.shape} and scores {scores.shape} do not fit, or a class has no column, or a score is no number"
        )
    is_true = truth.astype(bool) if task == "multi-label" else truth[:, None] == np.arange(classes)
    return is_true[:, -1:] if task == "binary" else is_true, columns
