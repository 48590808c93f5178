"""The process door: arguments in, one sentence and an exit code out.

Exit codes: 0 done, 1 wrong use, 2 failed, 3 done with quarantined samples.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from foundation.bucket import Bucket, StoreOptions
from foundation.location import parse_location, split_weight
from storage_schema.errors import CrossdimError, UsageError

DONE, WRONG_USE, FAILED, QUARANTINED = 0, 1, 2, 3
INTERRUPTED = 130

Verb = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose wrong use is exit code 1."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and where help is."""
        self.exit(WRONG_USE, f"error: {message}. See {self.prog} --help\n")


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """The options that every verb with a storage argument takes."""
    group = parser.add_argument_group("storage", "every path is a folder or any fsspec URL, such as s3://bucket/folder")
    group.add_argument("--endpoint-url", metavar="URL", help="address of an S3-compatible store")
    group.add_argument("--access-key", metavar="KEY", help="access key; otherwise from profile, role or environment")
    group.add_argument("--secret-key", metavar="SECRET", help="secret key")
    group.add_argument("--region", metavar="NAME", help="region of the store")
    group.add_argument("--anonymous", action="store_true", help="do not sign requests")


def bucket(location: str, arguments: argparse.Namespace) -> Bucket:
    """The bucket at ``location``, reached as the arguments say; a relative folder is one of this process, not of a worker's."""
    return Bucket(parse_location(location), _store_options(arguments))


def weighted_bucket(text: str, arguments: argparse.Namespace) -> tuple[Bucket, float]:
    """The bucket and the weight that ``LOCATION`` or ``LOCATION:WEIGHT`` names; what exists decides between two readings."""
    options = _store_options(arguments)
    location, weight = split_weight(text, lambda location: Bucket(location, options).exists())
    return Bucket(location, options), weight


def _store_options(arguments: argparse.Namespace) -> StoreOptions:
    return StoreOptions(
        endpoint_url=arguments.endpoint_url,
        access_key=arguments.access_key,
        secret_key=arguments.secret_key,
        region=arguments.region,
        anonymous=arguments.anonymous,
    )


def answer(document: dict[str, object], sentence: str, *, as_json: bool) -> None:
    """Print a verb's result: a sentence for people, or one JSON object for machines."""
    sys.stdout.write((json.dumps(document, sort_keys=True) if as_json else sentence) + "\n")
    sys.stdout.flush()


def _own_error(error: BaseException) -> CrossdimError | None:
    """The error of ours behind ``error``; Ray wraps what a worker raised."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, CrossdimError):
        return cause
    return error if isinstance(error, CrossdimError) else None


def run(verb: Verb, arguments: argparse.Namespace) -> int:
    """Run a verb; whatever ends it becomes an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        return verb(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        return INTERRUPTED
    except Exception as error:  # the process door: the only place that may catch everything
        ours = _own_error(error)
        if ours is None:
            traceback.print_exc()
            sys.stderr.write("error: this is a fault of crossdim, not of your input; please report the lines above\n")
            return FAILED
        sys.stderr.write(f"error: {ours}\n")
        return WRONG_USE if isinstance(ours, UsageError) else FAILED


def main(build: Callable[[], argparse.ArgumentParser], argv: Sequence[str] | None = None) -> int:
    """Parse arguments and run the verb they name."""
    arguments = build().parse_args(argv)
    return run(arguments.verb, arguments)
