"""The entry of a process: arguments in, one sentence and an exit code out.

Exit codes: 0 done, 1 wrong use, 2 failed, 3 done with quarantined samples, 130 interrupted (Ctrl-C). After SIGTERM it is 2.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from crossdim.foundation import signals
from crossdim.foundation.extras import missing_in
from crossdim.foundation.location import without_secrets
from crossdim.storage_schema.errors import CrossdimError, UsageError
from crossdim.storage_schema.names import printable

DONE, WRONG_USE, FAILED, QUARANTINED = 0, 1, 2, 3
INTERRUPTED = signals.EXIT_CODES[signals.SIGINT]

Verb = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose wrong use is exit code 1, and which takes no abbreviations: a misspelt option may be one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and where help is."""
        self.exit(WRONG_USE, f"error: {_shown(message)}. See {self.prog} --help\n")


def _shown(text: str) -> str:
    """Text of several lines for a terminal: whatever the names in it are, no control character reaches it."""
    return printable(without_secrets(text), keep="\n\t")


class _Formatter(logging.Formatter):
    """Log lines whose names of files cannot move the cursor."""

    def format(self, record: logging.LogRecord) -> str:
        return _shown(super().format(record))


def answer(document: dict[str, object], sentence: str, *, as_json: bool) -> None:
    """Print a verb's result: a sentence for people, or one JSON object for machines."""
    sys.stdout.write((json.dumps(document, sort_keys=True) if as_json else _shown(sentence)) + "\n")
    sys.stdout.flush()


def _own_error(error: BaseException, verb: Verb) -> CrossdimError | None:
    """The error of ours behind ``error``, or the sentence for a missing package; Ray wraps what a worker raised."""
    name = verb.__name__.lstrip("_")
    for one in (getattr(error, "cause", None), error):
        if isinstance(one, CrossdimError):
            return one
        if one is not None and (lack := missing_in(one, name)):
            return lack
    return None


def run(verb: Verb, arguments: argparse.Namespace) -> int:
    """Run a verb; whatever ends it becomes an exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    with signals.listening():
        return _ended(verb, arguments)


def _ended(verb: Verb, arguments: argparse.Namespace) -> int:
    try:
        return verb(arguments)
    except KeyboardInterrupt:
        return signals.say(signals.received() or signals.SIGINT)
    except Exception as error:  # the process entry: the only place that may catch everything
        ours = _own_error(error, verb)
        if stop := signals.received():  # what fails after it follows from it
            return signals.say(stop, _shown(str(ours)) if ours else None)
        if ours is None:
            sys.stderr.write(_shown(traceback.format_exc()))
            sys.stderr.write("error: this is a fault of crossdim, not of your input; please report the lines above\n")
            return FAILED
        sys.stderr.write(f"error: {_shown(str(ours))}\n")
        return WRONG_USE if isinstance(ours, UsageError) else FAILED


def main(build: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None = None) -> int:
    """Parse arguments and run the verb they name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is escaped and no error
            stream.reconfigure(errors="backslashreplace")
    arguments = build().parse_args(argv)
    return run(arguments.verb, arguments)
