"""The per-sample door: what one input gets wrong becomes a row that says so, and the job goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.reasons import foreign_text, without_addresses
from storage_schema.errors import CrossdimError, GeometryError, SampleError, StorageError

#: A named piece of work on one input. Values change their type on the way (bytes, a sample, many samples).
Step = tuple[str, Callable[[Any], Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """One refused input: where it lies, which stage refused it, by which rule, why in a sentence, and how many files it has."""

    uri: str
    stage: str
    rule: str
    reason: str
    num_files: int = 1

    def row(self) -> dict[str, object]:
        """The row of the quarantine table."""
        return asdict(self)


def verdict_on(uri: str, stage: str, error: Exception) -> Quarantined:
    """The quarantine row of an error: the same in every process that meets it."""
    if isinstance(error, SampleError):
        rule, reason = error.rule, error.reason
    elif isinstance(error, CrossdimError):
        rule, reason = "geometry" if isinstance(error, GeometryError) else type(error).__name__, str(error)
    else:
        rule, reason = type(error).__name__, f"{type(error).__name__}: {foreign_text(error)}"
    return Quarantined(uri=uri, stage=stage, rule=rule, reason=without_addresses(reason))


def through(uri: str, value: Any, steps: Sequence[Step]) -> Any | Quarantined:
    """Take one input through its steps; whatever an input can cause ends as a :class:`Quarantined`.

    What is no fault of the input passes: a store that does not answer, and a machine without memory.
    """
    stage = "start"
    try:
        for name, work in steps:
            stage = name
            value = work(value)
    except (StorageError, MemoryError):
        raise
    except Exception as error:  # the per-sample door: the only place in this house that may catch everything
        return verdict_on(uri, stage, error)
    return value
