"""The error classes: what is wrong with a command, a file or a store, as sentences.

    CrossdimError                 everything below; the process entry prints it without a traceback
    ├── UsageError                the command line or a recipe asks for something that does not exist    exit 1
    ├── DocumentError             a document breaks its schema; carries every problem at once           exit 2
    ├── GeometryError             shapes, windows or boxes do not fit together                           exit 2
    ├── SampleError               one input cannot become a sample; becomes a quarantine row
    ├── StorageError              a bucket or folder does not answer as it should                        exit 2
    │   ├── NoSampleError         a preparation without a sample; its message may hold names of files
    │   └── UnreachableError      no answer, or an incomplete one: the same request may succeed later
    └── RunError                  a training run cannot start or continue                                exit 2
        ├── StepError             a step failed in a way that may not happen again: worth another try
        └── CollapseError         features collapsed in a run that was to end then                       exit 4

Errors travel between Ray processes, so each passes all of its arguments to ``super().__init__`` and builds its text in
``__str__``: unpickling calls the class with ``args``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crossdim.storage_schema.names import printable


class CrossdimError(Exception):
    """Something outside our code is wrong, and the message says what to do about it."""


class UsageError(CrossdimError):
    """The command line or a recipe asks for something that does not exist."""


class GeometryError(CrossdimError):
    """Shapes, windows or boxes do not fit together."""


class StorageError(CrossdimError):
    """A bucket or folder does not answer as it should."""


class UnreachableError(StorageError):
    """A store gives no answer, or an incomplete one: the same request may succeed later."""


class ShortObjectError(StorageError):
    """An object ends before the bytes that were asked for, which its size says that it has."""


class NoSampleError(StorageError):
    """No input of a preparation became a sample.

    Args:
        message: for the owner of the sources, with names of files.
        recorded: the same as it may be stored beside the dataset, with the names that would be published.
    """

    def __init__(self, message: str, recorded: str) -> None:
        super().__init__(message, recorded)
        self.message = message
        self.recorded = recorded

    def __str__(self) -> str:
        return self.message


class RunError(CrossdimError):
    """A training run cannot start or continue."""


class StepError(RunError):
    """A step failed in a way that may not happen again: it is worth another try."""


class CollapseError(RunError):
    """The features of a run collapsed, and it was to end then."""


class SampleError(CrossdimError):
    """One input cannot become a sample.

    Args:
        rule: short machine-readable name of the broken rule, such as ``truncated``.
        reason: one sentence: what was found, what was expected, what to do.
        files: for an input of several files, the indices of those at fault; empty if it is all of them.
        stage: name of the stage that refused the input, where the code that catches the error cannot know it: it ran in another
            process.
    """

    def __init__(self, rule: str, reason: str, files: tuple[int, ...] = (), stage: str = "") -> None:
        super().__init__(rule, reason, files, stage)
        self.rule = rule
        self.reason = reason
        self.files = files
        self.stage = stage

    def __str__(self) -> str:
        return f"{self.reason} [{self.rule}]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong in a document: where, and what."""

    loc: str
    message: str

    def __str__(self) -> str:
        return f"{printable(self.loc)}: {printable(self.message)}"


class DocumentError(CrossdimError):
    """A document breaks its schema. Every problem is listed, not only the first."""

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        super().__init__(subject, tuple(problems))
        self.subject = subject
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{self.subject} ({count} problem{'' if count == 1 else 's'})"
        return "\n  ".join([head, *map(str, self.problems)])


def find_near_names(name: object, known: Iterable[str], *, cutoff: float = 0.4) -> list[str]:
    """Find up to three names that are spelled like another, the nearest first.

    Args:
        name: that was given.
        known: every name that exists.
        cutoff: least similarity, 0 to 1.

    Returns:
        The names.
    """
    return difflib.get_close_matches(str(name), sorted(known), n=3, cutoff=cutoff)


def describe_unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Describe a name that does not exist, with the nearest names that do.

    Args:
        kind: of thing that is named, such as ``recipe``.
        name: that was given; from a document it may be no text.
        known: every name that exists.

    Returns:
        One sentence with up to three near names and all known ones.
    """
    names = sorted(known)
    near = find_near_names(name, names)
    hint = f"did you mean {' or '.join(near)}?" if near else "none is near."
    return f"unknown {kind} {name!r}; {hint} Known: {', '.join(names)}"


def list_wrong_settings(config: object, **fine: bool) -> str:
    """List the settings of a configuration that failed their check.

    Args:
        config: with the settings as attributes.
        **fine: for each setting, whether its value is allowed.

    Returns:
        ``name=value`` of each that is not, joined by commas; empty if all are allowed.
    """
    return ", ".join(f"{name}={getattr(config, name)}" for name, is_fine in fine.items() if not is_fine)
