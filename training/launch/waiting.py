"""What a run without workers needs, and whether the cluster has it."""

from __future__ import annotations

from dataclasses import dataclass

from crossdim.foundation.cluster import count_free, has_reserved


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """What a run needs and has not reserved.

    Attributes:
        sentence: what it needs, and what the cluster has.
        is_short: whether the cluster has less than that.
    """

    sentence: str
    is_short: bool


def describe_workers(least: int, most: int) -> str:
    """Describe the workers of a run, as in ``2 to 16 workers``.

    Args:
        least: the fewest.
        most: the most.

    Returns:
        The words.
    """
    if least == most:
        return f"{most} worker{'' if most == 1 else 's'}"
    return f"{least} to {most} workers"


def describe_needs(least: int, most: int, unit: str) -> str:
    """Describe the workers of a run with what each needs, as in ``2 workers with 1 GPU each``.

    Args:
        least: the fewest.
        most: the most.
        unit: ``GPU`` or ``CPU``.

    Returns:
        The words.
    """
    return f"{describe_workers(least, most)} with 1 {unit}{'' if most == 1 else ' each'}"


def describe_count(number: int, unit: str) -> str:
    """A number with its unit, as in ``1 GPU`` or ``2 GPUs``.

    Args:
        number: how many.
        unit: in the singular.

    Returns:
        The words.
    """
    return f"{number} {unit}{'' if number == 1 else 's'}"


def find_wait(least: int, most: int, unit: str) -> Wait | None:
    """Find out what a run without workers waits for, of the cluster of the open session.

    Args:
        least: workers that it needs to start.
        most: workers that it can use.
        unit: that each needs: ``GPU`` or ``CPU``.

    Returns:
        What it waits for; None if its workers have reserved what they need, or nothing is known.
    """
    found = count_free(unit)
    # What the run itself has reserved is not free: it is asked after the count, which shows it late rather than early.
    if found is None or has_reserved(unit):
        return None
    at_least = "at least " if least < most else ""
    sentence = f"needs {at_least}{describe_needs(least, least, unit)}; the cluster has {found[0]} free of {found[1]}"
    return Wait(sentence=sentence, is_short=found[0] < least)
