"""An error in one input becomes a row of the quarantine, and the job continues."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossdim.pipelines.reasons import remove_addresses
from crossdim.storage_schema.errors import CrossdimError, GeometryError, SampleError, StorageError

#: A named function of one input. Values change their type from step to step (bytes, a sample, many samples).
Step = tuple[str, Callable[[Any], Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """One refused input: its name, the stage and the rule that refused it, the reason in a sentence, and its number of files."""

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
    """One file that is not an input: its format, the rule by which it was left out, and the reason in a sentence."""

    uri: str
    format: str
    rule: str
    reason: str

    def row(self) -> dict[str, object]:
        """The row of the table of ignored files."""
        return asdict(self)


#: Largest number of files that a reason names.
_MAX_NAMES = 3


def build_quarantine_row(uri: str, stage: str, error: Exception, files: Sequence[str] = ()) -> Quarantined:
    """Build the quarantine row of an error: the same in every process that meets it.

    Args:
        uri: the input's name in the dataset.
        stage: that refused it; a stage that the error itself names takes precedence.
        error: why.
        files: names in the dataset of the input's files, in the order that the error counts them.

    Returns:
        The row, with stage, rule and reason. The text of a foreign error, which may quote the input, is not part of it.
    """
    if isinstance(error, SampleError):
        stage, rule, reason = error.stage or stage, error.rule, error.reason + _describe_files(error.files, files)
    elif isinstance(error, CrossdimError):
        rule, reason = "geometry" if isinstance(error, GeometryError) else type(error).__name__, str(error)
    else:
        # Its text may quote the input, and so name a patient; the kind of error and where it arose cannot.
        rule = type(error).__name__
        reason = f"an error that was not foreseen: {rule} in {_find_function(error)}"
    return Quarantined(uri=uri, stage=stage, rule=rule, reason=remove_addresses(reason))


def _find_function(error: Exception) -> str:
    """Name the function that raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].name if frames else "a function that is not known"


def _describe_files(numbers: Sequence[int], files: Sequence[str]) -> str:
    names = [files[number] for number in numbers if number < len(files)]
    if len(files) < 2 or not names:
        return ""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"; at fault: {', '.join(names[:_MAX_NAMES])}{more}"


def apply_steps(uri: str, value: Any, steps: Sequence[Step], files: Sequence[str] = ()) -> Any | Quarantined:
    """Apply a sequence of steps to one input; every error that an input can cause ends as a :class:`Quarantined`.

    Errors that are no fault of the input are raised: a store that does not answer, and a machine without memory.

    Args:
        uri: the input's name in the dataset.
        value: what the first step takes.
        steps: named functions, each of the result of the one before.
        files: names in the dataset of the files of an input that has several; a reason names those at fault.

    Returns:
        The result of the last step, or the row of the quarantine.

    Raises:
        StorageError: if the store fails.
        MemoryError: if the machine has too little memory.
    """
    stage = "start"
    try:
        for name, work in steps:
            stage = name
            value = work(value)
    except (StorageError, MemoryError):
        raise
    except Exception as error:  # one sample is quarantined: the only broad except in pipelines outside the decoder process
        return build_quarantine_row(uri, stage, error, files)
    return value
