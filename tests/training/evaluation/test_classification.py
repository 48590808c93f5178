"""Classification figures against MedMNIST's numbers, and against counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.errors import GeometryError, RunError
from crossdim.training.evaluation.classification import Task, accuracy, auc, balanced_accuracy

#: Computed with MedMNIST's evaluator (3.0.2).
MEDMNIST: list[tuple[Task, list[object], list[object], float, float]] = [
    ("multi-class", [0, 1, 2, 1], [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]], 0.75, 0.5),
    ("binary", [0, 0, 1, 1], [0.1, 0.5, 0.5, 0.8], 0.875, 0.75),
    ("multi-label", [[1, 0], [0, 1], [1, 1], [0, 0]], [[0.8, 0.1], [0.4, 0.7], [0.6, 0.4], [0.6, 0.2]], 0.9375, 0.75),
]


@pytest.mark.parametrize(("task", "truth", "scores", "area", "share"), MEDMNIST)
def test_figures_are_those_of_medmnist(task: Task, truth: list[object], scores: list[object], area: float, share: float) -> None:
    assert auc(np.array(truth), np.array(scores), task) == pytest.approx(area, abs=1e-12)
    assert accuracy(np.array(truth), np.array(scores), task) == pytest.approx(share, abs=1e-12)


def test_the_last_column_of_a_binary_score_counts() -> None:
    """Not the larger of two, which differs where they do not sum to 1; and one half is a no."""
    truth, last = np.array([0, 1, 1, 0]), np.array([0.5, 0.6, 0.4, 0.1])
    pairs = np.stack([np.array([0.1, 0.9, 0.1, 0.3]), last], axis=1)
    assert accuracy(truth, pairs, "binary") == accuracy(truth, last, "binary") == 0.75
    assert auc(truth, pairs, "binary") == auc(truth, last, "binary")


def _wins(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mann and Whitney: how often a sample of the class outscores one of the rest, ties half."""
    pairs = itertools.product(scores[truth == 1], scores[truth == 0])
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))


samples = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 4), min_size=3, max_size=3)), min_size=1, max_size=12)


@given(samples=samples)
@pytest.mark.integration
def test_auc_is_the_share_of_pairs_in_the_right_order(samples: list[tuple[int, list[int]]]) -> None:
    """Few distinct scores, so that ties are common; classes weigh alike, whatever their counts."""
    truth = np.array([0, 1, 2, *(label for label, _ in samples)])
    scores = np.array([[0, 1, 2], [1, 1, 3], [4, 2, 2], *(score for _, score in samples)]) / 4
    areas = [_wins(truth == k, scores[:, k]) for k in range(3)]
    assert auc(truth, scores, "multi-class") == pytest.approx(np.mean(areas), abs=1e-12)
    assert auc((truth[:, None] == [0, 1]).astype(int), scores[:, :2], "multi-label") == pytest.approx(
        np.mean(areas[:2]), abs=1e-12
    )
    assert auc((truth == 2).astype(int), scores[:, 2], "binary") == pytest.approx(areas[2], abs=1e-12)
    assert auc(truth, np.exp(3 * scores), "multi-class") == pytest.approx(np.mean(areas), abs=1e-12)


@given(samples=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=20))
def test_balanced_accuracy_is_the_mean_recall(samples: list[tuple[str, str]]) -> None:
    truth, answers = (np.array(column) for column in zip(*samples, strict=True))
    recalls = [sum(t == a == name for t, a in samples) / sum(t == name for t, _ in samples) for name in set(truth.tolist())]
    assert balanced_accuracy(truth, answers) == pytest.approx(sum(recalls) / len(recalls), abs=1e-12)


def test_one_answer_for_all_is_chance_whatever_the_counts() -> None:
    truth = np.array(["a"] * 97 + ["b"] * 2 + ["c"])
    assert balanced_accuracy(truth, np.full(100, "a")) == pytest.approx(1 / 3)


def test_a_class_without_samples_has_no_area() -> None:
    with pytest.raises(RunError, match=r"\[2, 1, 0\] of 3"):
        auc(np.array([0, 0, 1]), np.eye(3), "multi-class")


@pytest.mark.parametrize(
    ("truth", "scores", "task"),
    [
        ([0, 1], [[0.5, 0.5]], "multi-class"),
        ([0, 2], [[0.5, 0.5], [0.1, 0.9]], "multi-class"),
        ([0, 2], [0.5, 0.1], "binary"),
        ([0, 1], [np.nan, 0.1], "binary"),
        ([[0, 1]], [[0.5, 0.1, 0.3]], "multi-label"),
        ([], [], "binary"),
    ],
)
def test_what_does_not_fit_is_refused(truth: list[object], scores: list[object], task: Task) -> None:
    for figure in (auc, accuracy):
        with pytest.raises(GeometryError, match="do not fit"):
            figure(np.array(truth, int), np.array(scores, float), task)
