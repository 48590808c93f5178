"""Counts of things in sentences."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str) -> str:
    """A number and its noun, such as ``1 file`` and ``2 files``.

    Args:
        number: how many.
        noun: in the singular; of several words the last is put into the plural.

    Returns:
        The text, without a thousands separator.
    """
    return f"{number} {noun if number == 1 else noun + 's'}"


def list_some(names: Sequence[str], most: int) -> str:
    """The first names of a list, and how many more there are.

    Args:
        names: all of them.
        most: that are named.

    Returns:
        Such as ``a, b and 3 more``.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def count_patients(known: int, unknown: int) -> str:
    """Patients, and inputs whose patient is not known, such as ``20 patients and 6 inputs of unknown patients``.

    Args:
        known: patients.
        unknown: inputs of unknown patients.

    Returns:
        The text; of ``0 patients`` only where there is neither.
    """
    groups = [count(known, "patient")] if known or not unknown else []
    return " and ".join([*groups, *([f"{count(unknown, 'input')} of unknown patients"] if unknown else [])])
