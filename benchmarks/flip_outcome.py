"""What comes of a flipped bit: refused, repaired or harmless; anything else ends the measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from crossdim.foundation.bucket import Bucket


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a flip, and by what or why."""

    kind: Literal["refused", "repaired", "harmless"]
    how: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Objects of one kind, and how to look at what they belong to."""

    kind: str
    bucket: Bucket
    paths: tuple[str, ...]
    look: Callable[[str], Outcome]


class UnseenError(Exception):
    """A flip changed a value, and nobody said so."""


def expect(right: bool, what: str) -> None:
    """End the measurement where a value changed unseen."""
    if not right:
        raise UnseenError(what)
