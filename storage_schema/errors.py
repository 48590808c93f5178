"""The error tree: what a user, a file or a store got wrong, as sentences.

    CrossdimError                 everything below; the process entry prints it without a traceback
    ├── UsageError                the command line or a recipe asks for something that does not exist    exit 1
    ├── DocumentError             a document breaks its schema; carries every problem at once           exit 2
    ├── GeometryError             shapes, windows or boxes do not fit together                           exit 2
    ├── SampleError               one input cannot become a sample; ends as a quarantine row
    ├── StorageError              a bucket or folder does not answer as it should                        exit 2
    │   └── UnreachableError      no answer, or not a whole one: the same question may be answered later
    └── RunError                  a training run cannot start or go on                                   exit 2
        └── StepError             a step failed in a way that may not come again: another try is worth it

Errors travel between Ray processes, so each hands all of its arguments to ``super().__init__`` and builds its text in
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
    """A store gives no answer, or not a whole one: the same question may be answered later."""


class RunError(CrossdimError):
    """A training run cannot start or go on."""


class StepError(RunError):
    """A step failed in a way that may not come again: another try is worth it."""


class SampleError(CrossdimError):
    """One input cannot become a sample.

    Args:
        rule: short machine-readable name of the broken rule, such as ``truncated``.
        reason: one sentence: found, expected, remedy.
        files: numbers, within an input of several files, of those at fault, if it is not all.
        stage: that refused it, where whoever meets the error cannot know: it ran in another process.
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
    """One thing wrong in a document: where, and what."""

    loc: str
    message: str

    def __str__(self) -> str:
        return f"{printable(self.loc)}: {printable(self.message)}"


class DocumentError(CrossdimError):
    """A document breaks its schema. All problems are listed, not the first."""

    def __init__(self, subject: str, problems: Sequence[Problem]) -> None:
        super().__init__(subject, tuple(problems))
        self.subject = subject
        self.problems = tuple(problems)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{self.subject} ({count} problem{'' if count == 1 else 's'})"
        return "\n  ".join([head, *map(str, self.problems)])


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a name that does not exist, with the nearest ones that do."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "none is near."
    return f"unknown {kind} {name!r}; {hint} Known: {', '.join(names)}"


def wrong_settings(config: object, **fine: bool) -> str:
    """The settings of ``config`` that are not ``fine``, as ``name=value``; empty if all are."""
    return ", ".join(f"{name}={getattr(config, name)}" for name, is_fine in fine.items() if not is_fine)
