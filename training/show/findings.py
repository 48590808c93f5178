"""Sentences about a run: what its evaluation found, and what its monitors warn of."""

from __future__ import annotations

from crossdim.training.show.facts import RunFacts

#: A share of the time above which waiting is worth a sentence.
MUCH_WAITING = 0.1


def describe_verdict(facts: RunFacts) -> str:
    """The first sentence of a page: how the encoder compares with untrained ones, or that this is not known."""
    if not facts.evaluation or not facts.evaluation.results:
        known = "It was evaluated, and no dataset could be probed." if facts.evaluation else "It has not been evaluated."
        return f"{known} Whether this encoder is better than an untrained one is not known."
    results, step = facts.evaluation.results, facts.evaluation.step
    when = f"At step {step}: " if _is_outdated(facts) else ""
    above, below = (sum(result.sign == sign for result in results) for sign in (1, -1))
    total = f"{len(results)} probe{'s' if len(results) != 1 else ''}"
    if above:
        said = f"Better than an untrained network on {above} of {total}"
    elif below:
        said = f"Worse than an untrained network on {below} of {total}"
    else:
        return f"{when}No better than an untrained network: on {len(results)} of {total} no difference is shown."
    others = [f"worse on {below}"] * bool(above and below) + [f"no difference on {len(results) - above - below}"] * bool(
        len(results) - above - below
    )
    return f"{when}{', '.join([said, *others])}."


def _is_outdated(facts: RunFacts) -> bool:
    """Whether the run has gone on since it was evaluated."""
    return bool(facts.evaluation and facts.evaluation.step is not None and facts.evaluation.step < facts.status.step)


def find_warnings(facts: RunFacts) -> list[str]:
    """What a person should look at: collapsed features, waiting for data, unreadable steps, a run that does not go on."""
    warnings = []
    if collapses := [event for event in facts.events if event["kind"] == "collapse" and event.get("text")]:
        warnings.append(f"at step {collapses[-1]['step']} {collapses[-1]['text']}")
    status = facts.status
    if facts.evaluation and _is_outdated(facts):
        warnings.append(
            f"probes and reconstructions are of step {facts.evaluation.step}; the run is at step {status.step}: evaluate it again"
        )
    if (status.wait_share or 0.0) > MUCH_WAITING:
        warnings.append(f"{status.wait_share:.0%} of the time is spent waiting for data: raise --threads")
    if (status.skew_share or 0.0) > MUCH_WAITING:
        warnings.append(f"{status.skew_share:.0%} of the time the other workers wait for the slowest one")
    if facts.damaged:
        lost = f"{facts.damaged} step{' is' if facts.damaged == 1 else 's are'}"
        warnings.append(f"{lost} missing in the curves: what was logged cannot be read")
    return [*warnings, *facts.problems]
