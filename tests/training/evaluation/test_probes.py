"""Probes of frozen features: DINOv2's vote against a transcription, and folds that keep their promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize, one_hot

from crossdim.storage_schema.errors import RunError
from crossdim.training.evaluation.probes import classifiers, compute_scores, split_folds
from tests.training.evaluation.made import labelled


def test_neighbours_vote_by_the_softmax_of_their_cosine() -> None:
    """Three neighbours, as for nine samples; features of any length."""
    nearest = classifiers(9)["knn"].fit(np.array([[1, 0], [1.8, 0.2], [0, 1], [0.1, 0.9]]), np.array([0, 0, 1, 1]))
    query = np.array([[0.6, 0.5]]) * 7
    assert nearest.kneighbors(query, return_distance=False).tolist() == [[1, 0, 3]]
    assert nearest.predict_proba(query)[0] == pytest.approx([0.8748876, 0.1251124], abs=1e-7)
    assert nearest.predict(query).tolist() == [0]


@given(seed=st.integers(0, 10_000), num_train=st.integers(3, 130))
def test_votes_are_those_of_dinov2(seed: int, num_train: int) -> None:
    """Its rule written out: normalise, multiply, top k, softmax at 0.07, scatter into classes."""
    rng = np.random.default_rng(seed)
    train, query = rng.normal(0, 1, (num_train, 5)), rng.normal(0, 1, (4, 5))
    labels = np.concatenate([[0, 1, 2], rng.integers(0, 3, num_train - 3)])
    k = min(10, int(np.ceil(num_train**0.5)))
    cosines, places = (normalize(torch.from_numpy(query)) @ normalize(torch.from_numpy(train)).T).topk(k)
    votes = (one_hot(torch.from_numpy(labels)[places], 3) * (cosines / 0.07).softmax(dim=1)[..., None]).sum(dim=1).numpy()
    nearest = classifiers(num_train)["knn"].fit(train, labels)
    assert nearest.predict_proba(query) == pytest.approx(votes, abs=1e-9)
    assert nearest.predict(query).tolist() == votes.argmax(axis=1).tolist()


def test_there_are_ten_neighbours_or_fewer_in_small_sets() -> None:
    counts = {num_train: classifiers(num_train)["knn"].n_neighbors for num_train in (1, 2, 16, 17, 81, 100, 10_000)}
    assert counts == {1: 1, 2: 2, 16: 4, 17: 5, 81: 9, 100: 10, 10_000: 10}


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_a_rare_class_is_not_outvoted(probe: str) -> None:
    """Four samples against 36: with ten neighbours of equal weight they would never win."""
    labels = (np.arange(40) % 10 == 0).astype(int)
    x = np.stack([1 + 0.01 * np.random.default_rng(0).normal(0, 1, 40), 0.3 * labels], axis=1)
    data = labelled(x, labels)
    assert compute_scores(probe, data.x_NC, data, split_folds(data, 4)).min() == 1


@pytest.mark.parametrize("probe", ["knn", "linear"])
@pytest.mark.integration
def test_nothing_is_learnt_from_what_is_held_out(probe: str) -> None:
    """Neither other held-out samples nor those outside of a fold change a score, even absurd ones."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    data = labelled(rng.normal(0, 1, (60, 6)) + labels[:, None] * 0.7, labels)
    train, test, rest = np.split(np.arange(60), [30, 45])
    corrupted = data.x_NC.copy()
    corrupted[rest] = rng.normal(1e4, 1e4, (15, 6))
    before = compute_scores(probe, data.x_NC, data, [(train, test)])
    assert 0.5 < before[0] < 1
    assert compute_scores(probe, corrupted, data, [(train, test)]) == before
    both = np.concatenate([test, rest])
    alone = compute_scores(probe, corrupted, data, [(train, np.array([i])) for i in both])
    expected = np.mean([alone[labels[both] == k].mean() for k in (0, 1)])
    assert compute_scores(probe, corrupted, data, [(train, both)])[0] == pytest.approx(expected)


patients = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=0, max_size=12)


@given(patients=patients, folds=st.integers(2, 6), sort=st.booleans())
def test_folds_keep_their_promises(patients: list[tuple[int, int]], folds: int, sort: bool) -> None:
    """Sorted or not, both sides hold every class, share no patient, and together are everything."""
    every = [(k, 2) for k in (0, 0, 1, 1, 2, 2)] + patients
    every = sorted(every) if sort else every
    labels = np.concatenate([[label] * count for label, count in every])
    owners = np.concatenate([[number] * count for number, (_, count) in enumerate(every)])
    data = labelled(np.zeros((len(labels), 1)), labels, owners)
    for train, test in split_folds(data, folds):
        assert set(data.labels[train]) == set(data.labels[test]) == set(data.names)
        assert not set(data.patients[train]) & set(data.patients[test])
        assert sorted([*train, *test]) == list(range(len(labels)))


def test_the_published_split_of_sorted_labels_would_not_do() -> None:
    """The first fifth of sorted samples is of one class; five folds of ours hold 20 of each."""
    data = labelled(np.zeros((200, 1)), np.repeat([0, 1], 100))
    assert len(set(data.labels[:40])) == 1
    assert [np.bincount(data.labels[test].astype(int)).tolist() for _, test in split_folds(data, 5)] == [[20, 20]] * 15


def test_without_a_whole_fold_nothing_is_probed() -> None:
    """Three patients of two classes each: every class has two patients, and whoever is alone on a side lacks one."""
    data = labelled(np.zeros((6, 1)), np.array([0, 1, 0, 2, 1, 2]), np.array([0, 0, 1, 1, 2, 2]))
    with pytest.raises(RunError, match="none of 6 folds has every class on both sides"):
        split_folds(data, 2)
