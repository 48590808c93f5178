"""Types of command-line options that several verbs have."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """A whole number from 1 up.

    Raises:
        argparse.ArgumentTypeError: for other text.
    """
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 up; found {text!r}")
    return int(text)
