"""Counts of things in sentences."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """A number and its noun, such as ``1 file`` and ``2 files``.

    Args:
        number: how many.
        noun: in the singular; of several words the last is put into the plural.

    Returns:
        The text, without a thousands separator.
    """
    return f"{number} {noun if number == 1 else noun + 's'}"
