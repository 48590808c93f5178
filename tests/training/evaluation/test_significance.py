"""Significance against published numbers, against plainer tests, and against a procedure built otherwise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from crossdim.storage_schema.errors import RunError
from crossdim.training.evaluation.significance import compute_corrected_t, holm

DIFFERENCES = np.array([1, 3, 0, 2, 4, 1, 2, 5, -1, 2, 3, 1, 0, 2, 3]) / 100


def test_fifteen_folds_that_look_certain_are_not() -> None:
    """The plain test calls p = 0.0005 what the corrected one calls 0.057."""
    corrected, plain = compute_corrected_t(DIFFERENCES, 0.25), compute_corrected_t(DIFFERENCES, 0)
    assert corrected.t == pytest.approx(2.0763131, abs=1e-6)
    assert corrected.p_value == pytest.approx(0.0567629, abs=1e-6)
    assert plain.t == pytest.approx(4.5252, abs=1e-4)
    assert plain.p_value == pytest.approx(0.000476, abs=1e-6)
    assert corrected.freedom == 14


numbers = st.lists(st.integers(-100, 100).map(float), min_size=2, max_size=20)


@given(numbers=numbers.filter(lambda n: len(set(n)) > 1), share=st.floats(0, 1))
def test_the_correction_widens_the_plain_test_by_a_known_factor(numbers: list[float], share: float) -> None:
    """sqrt(1 + n share), and nothing else changes; turning the question around turns the sign alone."""
    differences = np.array(numbers)
    theirs, ours = stats.ttest_1samp(differences, 0), compute_corrected_t(differences, share)
    assert ours.t * math.sqrt(1 + len(numbers) * share) == pytest.approx(theirs.statistic, rel=1e-9, abs=1e-12)
    assert compute_corrected_t(differences, 0).p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert compute_corrected_t(-differences, share).t == pytest.approx(-ours.t)


def test_false_alarms_over_dependent_folds_are_rarer() -> None:
    """Two worthless classifiers over 3 x 5 folds of 50 coin flips: the plain test alarms too often, the corrected does not."""
    rng, alarms = np.random.default_rng(0), np.zeros(2)
    for _ in range(400):
        edge = (rng.random(50) < 0.5).astype(float) - (rng.random(50) < 0.5)
        folds = [edge[part].mean() for _ in range(3) for part in np.array_split(rng.permutation(50), 5)]
        alarms += [compute_corrected_t(np.array(folds), share).p_value < 0.05 for share in (0, 0.25)]
    assert alarms[0] / 400 > 0.15
    assert alarms[1] / 400 < 0.07


def test_equal_differences_have_no_spread() -> None:
    assert compute_corrected_t(np.full(6, 0.1), 0.25).p_value == 0
    assert compute_corrected_t(np.full(6, -0.1), 0.25).t == -math.inf
    assert compute_corrected_t(np.zeros(6), 0.25).p_value == 1


@pytest.mark.parametrize(("differences", "share"), [([0.1], 0.25), ([0.1, math.nan], 0.25), ([0.1, 0.2], -1)])
def test_what_cannot_be_tested_is_refused(differences: list[float], share: float) -> None:
    with pytest.raises(RunError, match="two or more finite"):
        compute_corrected_t(np.array(differences), share)


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_bonferroni_closed_over_every_subset(p_values: list[float]) -> None:
    """Marcus et al. (1976): a question stands if every family that holds it stands by Bonferroni."""
    families = [f for size in range(1, len(p_values) + 1) for f in itertools.combinations(range(len(p_values)), size)]
    joint = {f: min(1, len(f) * min(p_values[i] for i in f)) for f in families}
    expected = [max(joint[f] for f in families if i in f) for i in range(len(p_values))]
    assert holm(np.array(p_values)) == pytest.approx(expected, abs=1e-15)


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_what_is_no_probability_is_refused() -> None:
    for numbers in ([0.1, math.nan], [1.1], [-0.1]):
        with pytest.raises(RunError, match="probabilities"):
            holm(np.array(numbers))
