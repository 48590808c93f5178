"""What one input gets wrong becomes a row of the quarantine, and the job goes on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossdim.pipelines.reasons import without_addresses
from crossdim.storage_schema.errors import CrossdimError, GeometryError, SampleError, StorageError

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Ignored:
    """One file that is no input: what it is, by which rule it was left out, and why in a sentence."""

    uri: str
    format: str
    rule: str
    reason: str

    def row(self) -> dict[str, object]:
        """The row of the table of ignored files."""
        return asdict(self)


#: Files at fault that a reason names.
_MAX_NAMES = 3


def quarantine_row(uri: str, stage: str, error: Exception, files: Sequence[str] = ()) -> Quarantined:
    """The quarantine row of an error: the same in every process that meets it.

    Args:
        uri: the input's name in the dataset.
        stage: that refused it; one that the error names itself goes before.
        error: why.
        files: names in the dataset of the input's files, in the order that the error counts them.
    """
    if isinstance(error, SampleError):
        stage, rule, reason = error.stage or stage, error.rule, error.reason + _at_fault(error.files, files)
    elif isinstance(error, CrossdimError):
        rule, reason = "geometry" if isinstance(error, GeometryError) else type(error).__name__, str(error)
    else:
        # Its text may quote the input, and so name a patient; the kind of error and where it arose cannot.
        rule = type(error).__name__
        reason = f"an error that was not foreseen: {rule} in {_function_of(error)}"
    return Quarantined(uri=uri, stage=stage, rule=rule, reason=without_addresses(reason))


def _function_of(error: Exception) -> str:
    """The function that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].name if frames else "a function that is not known"


def _at_fault(numbers: Sequence[int], files: Sequence[str]) -> str:
    names = [files[number] for number in numbers if number < len(files)]
    if len(files) < 2 or not names:
        return ""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"; at fault: {', '.join(names[:_MAX_NAMES])}{more}"


def apply_steps(uri: str, value: Any, steps: Sequence[Step], files: Sequence[str] = ()) -> Any | Quarantined:
    """Take one input through its steps; whatever an input can cause ends as a :class:`Quarantined`.

    Args:
        uri: the input's name in the dataset.
        value: what the first step takes.
        steps: named functions, each of the result of the one before.
        files: names in the dataset of the files of an input that has several; a reason names those at fault.

    What is no fault of the input passes: a store that does not answer, and a machine without memory.
    """
    stage = "start"
    try:
        for name, work in steps:
            stage = name
            value = work(value)
    except (StorageError, MemoryError):
        raise
    except Exception as error:  # one sample is quarantined: the only broad except in pipelines outside the decoder process
        return quarantine_row(uri, stage, error, files)
    return value
