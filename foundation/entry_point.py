"""The entry point of a process: parses arguments, runs a verb, and returns an exit code.

Exit codes: 0 done, 1 usage error or a question answered with no, 2 failed, 3 done with quarantined samples, 4 ended by
--stop-on-collapse, 130 interrupted (Ctrl-C). After SIGTERM it is 2.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from crossdim.foundation import signals
from crossdim.foundation.bars import STREAM_ERRORS, write_above_bars
from crossdim.foundation.config_options import NegatableFlag, names_config
from crossdim.foundation.extras import explain_import_error
from crossdim.foundation.location import hide_secrets
from crossdim.storage_schema.errors import CollapseError, CrossdimError, StorageError, UsageError, find_near_names
from crossdim.storage_schema.names import printable

DONE, WRONG_USE, FAILED, QUARANTINED, COLLAPSED = 0, 1, 2, 3, 4
#: Nothing was done because the user answered a question with no. As for most programs that ask.
DECLINED = 1
#: Exit codes of errors; of others it is ``FAILED``.
CODES: dict[type[CrossdimError], int] = {UsageError: WRONG_USE, CollapseError: COLLAPSED}
INTERRUPTED = signals.EXIT_CODES[signals.SIGINT]

Verb = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser that exits with code 1 on a usage error, and takes no abbreviations: a misspelt option might be one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | kwargs)
        self.register("action", "store_true", NegatableFlag)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does; options that this parser does not know are an error here, before those that are missing.

        Args:
            args: words of the command line; None for those of the process.
            namespace: that the values are put into.

        Returns:
            The namespace and the words that are left over, none of which is an option.
        """
        words = list(sys.argv[1:] if args is None else args)
        if unknown := self._find_unknown_options(words):
            self.error(f"unrecognized arguments: {', '.join(map(self._describe_unknown_option, unknown))}")
        return super().parse_known_args(words, namespace)

    def _find_unknown_options(self, words: Sequence[str]) -> list[str]:
        if self._subparsers is not None or not {"-h", "--help"}.isdisjoint(words):  # the verb's parser knows its options
            return []
        options = words[: words.index("--")] if "--" in words else words
        names = dict.fromkeys(word.partition("=")[0] for word in options if word.startswith("--"))
        return [name for name in names if name not in self._option_string_actions]

    def _describe_unknown_option(self, name: str) -> str:
        near = find_near_names(name, (one for one in self._option_string_actions if one.startswith("--")), cutoff=0.6)
        return f"{name} (did you mean {near[0]}?)" if near else name

    def print_help(self, file: Any = None) -> None:
        """Print the help, and end with an error if it cannot be written.

        Args:
            file: where to; None for standard output.
        """
        if file is not None or sys.stdout is None:
            super().print_help(file)
            return
        try:
            print_result({}, self.format_help().rstrip("\n"), as_json=False)
        except StorageError as error:
            self.exit(FAILED, f"error: {error}\n")

    def error(self, message: str) -> NoReturn:
        """Print what is wrong in one line, and where to find help."""
        self.exit(WRONG_USE, f"error: {_make_printable(message)}. See {self.prog} --help\n")


def add_examples(parser: argparse.ArgumentParser, examples: Sequence[str], recipes: Sequence[str] = ()) -> None:
    """Show examples at the end of a verb's help, and the recipes that it takes.

    Args:
        parser: of the verb.
        examples: command lines, with the name of the program.
        recipes: names; none if the verb takes no recipe.
    """
    lines = textwrap.wrap(", ".join(recipes), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    named = ["", "recipes:", *lines] if recipes else []
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["examples:", *(f"  {example}" for example in examples), *named])


def _make_printable(text: str) -> str:
    """Text of several lines for a terminal: no control character in a name reaches it, and no secret of a URL."""
    return printable(hide_secrets(text), keep="\n\t")


class _Formatter(logging.Formatter):
    """Log lines in which names of files cannot move the cursor."""

    def format(self, record: logging.LogRecord) -> str:
        return _make_printable(super().format(record))


class _Handler(logging.StreamHandler[Any]):
    """Writes log lines above a progress bar, not into it."""

    def emit(self, record: logging.LogRecord) -> None:
        write_above_bars(partial(super().emit, record))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # its name in logging
        with contextlib.suppress(*STREAM_ERRORS):
            super().handleError(record)


def print_result(document: dict[str, object], sentence: str, *, as_json: bool) -> bool:
    """Print a verb's result to standard output.

    Args:
        document: the result for machines, of JSON values.
        sentence: the result for people; control characters in it are escaped.
        as_json: whether to print ``document``, in one line, and not ``sentence``.

    Returns:
        Whether there is a reader; that of a pipe may have left, as ``head`` does, and the work is done all the same.

    Raises:
        StorageError: if standard output is closed, or on a disk that is full.
    """
    if sys.stdout is None:  # it was closed before the start
        raise StorageError("the work is done, but its result cannot be written to standard output, which is closed")
    try:
        sys.stdout.write((json.dumps(document, sort_keys=True) if as_json else _make_printable(sentence)) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    except (OSError, ValueError) as error:  # a full disk, a closed stream: the work is done, and its result is nowhere
        reason = getattr(error, "strerror", None) or error
        raise StorageError(f"the work is done, but its result cannot be written to standard output: {reason}") from error
    return True


def _print_error(text: str) -> None:
    """Write to standard error; if nobody reads it the exit code still tells."""
    with contextlib.suppress(*STREAM_ERRORS):
        sys.stderr.write(_make_printable(text))


def _find_own_error(error: BaseException, verb: Verb) -> CrossdimError | None:
    """The error of ours in ``error``, or the message for a missing package; Ray wraps what a worker raised."""
    name = verb.__name__.lstrip("_")
    for one in (getattr(error, "cause", None), error):
        if isinstance(one, CrossdimError):
            return one
        if one is not None and (lack := explain_import_error(one, name)):
            return lack
    return None


def run(verb: Verb, arguments: argparse.Namespace) -> int:
    """Run a verb and turn every end of it, signals included, into an exit code.

    Args:
        verb: a function of the parsed arguments that returns an exit code.
        arguments: as parsed.

    Returns:
        The exit code: see the module.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for name in ("botocore", "aiobotocore"):  # they tell where they found credentials
        logging.getLogger(name).setLevel(logging.WARNING)
    with signals.listen():
        return _run_to_exit_code(verb, arguments)


def _run_to_exit_code(verb: Verb, arguments: argparse.Namespace) -> int:
    try:
        return verb(arguments)
    except KeyboardInterrupt:
        return signals.say(signals.received() or signals.SIGINT)
    except Exception as error:  # the process entry: the only place that may catch everything
        ours = _find_own_error(error, verb)
        if stop := signals.received():  # what fails after it follows from it
            return signals.say(stop, _make_printable(str(ours)) if ours else None)
        if ours is None:
            _print_error(traceback.format_exc())
            _print_error("error: this is a fault of crossdim, not of your input; please report the lines above\n")
            return FAILED
        _print_error(f"error: {ours}\n")
        return next((code for kind, code in CODES.items() if isinstance(ours, kind)), FAILED)


def main(build: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None = None) -> int:
    """Parse arguments and run the verb that they name.

    Args:
        build: returns the parser; the arguments that it parses hold the verb's function as ``verb``.
        argv: the arguments; None takes those of the process.

    Returns:
        The exit code: see the module.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks is escaped and no error
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else argv
    if not names_config(words):
        arguments = build().parse_args(words)
        return run(arguments.verb, arguments)
    return _run_with_config(build, words)


def _run_with_config(build: Callable[[], argparse.ArgumentParser], words: Sequence[str]) -> int:
    """Parse arguments together with a file, and run the verb, or print what it would run with."""
    from crossdim.foundation.config_parsing import Parsed, parse_with_config
    from crossdim.foundation.config_print import format_config

    parsed: list[Parsed] = []

    def parse(_: argparse.Namespace) -> int:
        parsed.append(parse_with_config(build, words))
        if getattr(parsed[0].arguments, "print_config", False):
            print_result({}, format_config(parsed[0]), as_json=False)
        return DONE

    code = run(parse, argparse.Namespace())
    if code != DONE or parsed[0].arguments.print_config:
        return code
    return run(parsed[0].arguments.verb, parsed[0].arguments)
