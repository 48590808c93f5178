"""Sentences about a run: what its evaluation found, and what its monitors warn of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossdim.training.run_dir.records import Record
from crossdim.training.show.facts import RunFacts

#: Below so many effective dimensions a page warns: features that lie near a line tell classes apart badly. Our choice.
FEW_DIMENSIONS = 2.0
#: Part of the names of monitors of effective dimensions.
DIMENSIONS = "dimensions"
#: Steps at the end that the monitors are averaged over.
LAST_STEPS = 20
#: A share of the time above which waiting is worth a sentence.
MUCH_WAITING = 0.1


def describe_verdict(facts: RunFacts) -> str:
    """The first sentence of a page: how the encoder compares with untrained ones, or that this is not known."""
    if not facts.evaluation or not facts.evaluation.results:
        known = "It was evaluated without labels." if facts.evaluation else "It has not been evaluated."
        return f"{known} Whether this encoder is better than an untrained one is not known."
    results = facts.evaluation.results
    above, below = (sum(result.sign == sign for result in results) for sign in (1, -1))
    total = f"{len(results)} probe{'s' if len(results) != 1 else ''}"
    if above:
        said = f"Better than an untrained network on {above} of {total}"
    elif below:
        said = f"Worse than an untrained network on {below} of {total}"
    else:
        return f"No better than an untrained network: on {len(results)} of {total} the difference is inside the spread."
    others = [f"worse on {below}"] * bool(above and below) + [f"no difference on {len(results) - above - below}"] * bool(
        len(results) - above - below
    )
    return f"{', '.join([said, *others])}."


def find_warnings(facts: RunFacts) -> list[str]:
    """What a person should look at: collapsed features, waiting for data, unreadable steps, a run that does not go on."""
    warnings = []
    dimensions = average_monitors(facts.metrics[-LAST_STEPS:], DIMENSIONS)
    if few := {name: value for name, value in sorted(dimensions.items()) if value < FEW_DIMENSIONS}:
        named = ", ".join(f"{name} {value:.1f}" for name, value in few.items())
        warnings.append(
            f"the features of a step vary in hardly more than one direction (collapse): {named}; a lower learning rate or more "
            "samples a step may help"
        )
    status = facts.status
    if (status.wait_share or 0.0) > MUCH_WAITING:
        warnings.append(f"{status.wait_share:.0%} of the time is spent waiting for data: raise --threads")
    if (status.skew_share or 0.0) > MUCH_WAITING:
        warnings.append(f"{status.skew_share:.0%} of the time the other workers wait for the slowest one")
    if facts.damaged:
        lost = f"{facts.damaged} step{' is' if facts.damaged == 1 else 's are'}"
        warnings.append(f"{lost} missing in the curves: what was logged cannot be read")
    return [*warnings, *facts.problems]


def average_monitors(metrics: Sequence[Record], word: str) -> dict[str, float]:
    """Average the monitors whose name holds a word.

    Args:
        metrics: of some steps.
        word: such as ``dimensions``.

    Returns:
        Means by name; values that are not finite are left out.
    """
    found: dict[str, list[float]] = {}
    for record in metrics:
        for name, value in record["monitors"].items():
            if word in name and np.isfinite(value):
                found.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}
