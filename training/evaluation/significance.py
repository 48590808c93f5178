"""Significance of differences over cross-validation folds, and correction for multiple comparisons.

Folds share training samples, so their results are not independent; a plain t-test over them finds differences where there
are none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from crossdim.storage_schema.errors import RunError

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Significance:
    """A t statistic, its degrees of freedom and its two-sided p-value."""

    t: float
    freedom: int
    p_value: float


def compute_corrected_t(differences: Numbers, test_to_train: float) -> Significance:
    """The corrected resampled t-test: is the mean difference over folds zero?

    t = mean / sqrt((1 / n + test_to_train) * variance), against Student's t with n - 1 degrees of freedom. The second term
    accounts for the samples that folds share; with 0 in its place this is the plain t-test for independent samples.

    Args:
        differences: (n,), one system's figure minus the other's on the same fold; all folds of all repetitions.
        test_to_train: test samples per training sample: 0.25 for five folds.

    Returns:
        If all differences are equal, t is infinite and p 0; if all are zero, t is 0 and p 1.

    Raises:
        RunError: if there are fewer than two differences, one is not finite, or the share is negative.

    Source: Nadeau and Bengio, Inference for the generalization error (Machine Learning 52, 2003); over repeated folds:
    Bouckaert and Frank (PAKDD 2004).
    """
    count = len(differences)
    if count < 2 or not np.isfinite(differences).all() or not 0 <= test_to_train < math.inf:
        raise RunError(f"expected two or more finite differences and a share of at least 0; found {differences}, {test_to_train}")
    mean = float(np.mean(differences))
    # Equal numbers have no variance, whatever rounding of their mean says.
    variance = float(np.var(differences, ddof=1)) if np.ptp(differences) > 0 else 0.0
    error = math.sqrt((1 / count + test_to_train) * variance)
    t = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return Significance(t=t, freedom=count - 1, p_value=float(2 * stats.t.sf(abs(t), count - 1)))


def holm(p_values: Numbers) -> Numbers:
    """Holm's correction of p-values for multiple comparisons.

    An adjusted value below a level is significant at that level for the whole family.

    The smallest is multiplied by m, the next by m - 1 and so on; none becomes smaller than the one before, or larger than 1.

    Args:
        p_values: (m,), each in [0, 1].

    Returns:
        (m,), in the same order.

    Raises:
        RunError: if one is not a probability.

    Source: Holm, A simple sequentially rejective multiple test procedure (Scandinavian Journal of Statistics 6, 1979).
    """
    if p_values.ndim != 1 or not np.all((p_values >= 0) & (p_values <= 1)):
        raise RunError(f"expected probabilities (m,); found {p_values}")
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted
