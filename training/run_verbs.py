"""The verbs ``status`` and ``runs``. They import no torch."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from crossdim.foundation import signals
from crossdim.foundation.config_options import add_config_options
from crossdim.foundation.entry_point import DECLINED, DONE, Parser, Verb, add_examples, print_result
from crossdim.foundation.location import format_location, hide_secrets, is_same_place
from crossdim.foundation.removal import confirm_removal
from crossdim.foundation.storage_arguments import add_store_options, open_bucket
from crossdim.foundation.watching import report_status
from crossdim.storage_schema.errors import CrossdimError, RunError, UsageError
from crossdim.training.option_values import parse_seconds

if TYPE_CHECKING:
    from crossdim.foundation.bucket import Bucket
    from crossdim.training.run_dir.removal import Removal

REMOVE = "rm"


def status(arguments: argparse.Namespace) -> int:
    """The verb ``status``: show how a run is doing."""
    signals.tell_outcome("")
    return show_run_status(open_bucket(arguments.location, arguments), arguments)


def show_run_status(run: Bucket, arguments: argparse.Namespace) -> int:
    """Show how a run is doing.

    Args:
        run: its folder.
        arguments: of the command line.

    Returns:
        The exit code: 0 if it is running, restarting or done.
    """
    from crossdim.training.run_dir.status import ENDED, GOOD, read_status

    return report_status(partial(read_status, run), arguments, final=ENDED, good=GOOD)


def runs(arguments: argparse.Namespace) -> int:
    """The verb ``runs``: list runs, or remove some."""
    from crossdim.training.run_dir.run_list import format_runs, list_runs

    signals.tell_outcome("")
    first, *others = arguments.folder
    if first == REMOVE:
        return _remove_runs(others, arguments)
    if others:
        raise UsageError("runs lists one folder; to remove runs: crossdim runs rm RUN [RUN ...]")
    if arguments.yes or arguments.force or arguments.dry_run:
        raise UsageError("--yes, --force and --dry-run are options of crossdim runs rm; leave them out to list runs")
    folder = open_bucket(first, arguments)
    rows = list_runs(folder, time.time())
    print_result({"runs": [asdict(row) for row in rows]}, format_runs(folder, rows), as_json=arguments.json)
    return DONE


def _remove_runs(urls: Sequence[str], arguments: argparse.Namespace) -> int:
    from crossdim.training.run_dir.removal import check_removal

    if not urls:
        raise UsageError("runs rm: RUN is missing; name the folder of at least one run: crossdim runs rm RUN [RUN ...]")
    signals.tell_outcome("nothing was removed")
    found_runs = [open_bucket(url, arguments) for url in urls]
    _check_distinct(found_runs)
    found = [check_removal(run, time.time(), force=arguments.force) for run in found_runs]  # all, before one is removed
    if arguments.dry_run:
        names = [hide_secrets(one.run.url) for one in found]
        print_result({"would_remove": names}, "\n".join(f"would remove {one}" for one in found), as_json=arguments.json)
        return DONE
    if not arguments.yes and not confirm_removal("runs rm", map(str, found)):
        sys.stderr.write("nothing was removed\n")
        return DECLINED
    return _remove_each(found, arguments)


def _check_distinct(found_runs: Sequence[Bucket]) -> None:
    for number, run in enumerate(found_runs):
        if any(is_same_place(run.url, other.url) for other in found_runs[:number]):
            raise UsageError(f"runs rm: {format_location(run.url)} is named twice; name each run once")


def _remove_each(found: Sequence[Removal], arguments: argparse.Namespace) -> int:
    from crossdim.training.run_dir.removal import remove_run

    removed: list[Removal] = []
    try:
        for one in found:
            with signals.hold():  # a run is removed as a whole, or not at all
                gone = remove_run(one, time.time(), force=arguments.force)
                removed.append(one)
                signals.tell_outcome(_summarise(found, removed))
                if not arguments.json:
                    rest = "" if gone else "; its folder stays, because it is not empty or may not be removed"
                    print_result({}, f"removed {one}{rest}", as_json=False)
    except CrossdimError as error:
        raise RunError(f"{error} ({_summarise(found, removed)})") from error
    finally:
        if arguments.json:
            names = [hide_secrets(one.run.url) for one in found]
            document: dict[str, object] = {"removed": names[: len(removed)], "not_removed": names[len(removed) :]}
            print_result(document, "", as_json=True)
    return DONE


def _summarise(found: Sequence[Removal], removed: Sequence[Removal]) -> str:
    names = [format_location(one.run.url) for one in found]
    done, rest = names[: len(removed)], names[len(removed) :]
    lists = [f"removed: {', '.join(done)}"] if done else []
    return "; ".join([*lists, f"not removed: {', '.join(rest)}"] if rest else lists)


def add_status(verbs: argparse._SubParsersAction[Parser], verb: Verb = status, subject: str = "a run") -> None:
    """Add the verb ``status``.

    Args:
        verbs: of the command line.
        verb: what it calls.
        subject: what it is about, for the help.
    """
    about = f"how {subject} is doing, from its folder alone; exit code 0 if it is at work or done, else 2"
    parser = verbs.add_parser("status", help=about, description=f"Show {about}.")
    parser.set_defaults(verb=verb)
    parser.add_argument("location", metavar="URL", help=f"folder of {subject}")
    looks = "repeat every S seconds (default 5) until it has ended; failed requests to the store are retried"
    parser.add_argument("--watch", type=parse_seconds, nargs="?", const=5.0, metavar="S", help=looks)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of sentences; with --watch one each time")
    add_config_options(parser)
    add_store_options(parser)
    add_examples(parser, ["crossdim status runs/first --watch", "crossdim status s3://lab/runs/a --json"])


def add_runs(verbs: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb ``runs``."""
    about = (
        "List the runs below a folder, or remove some. A run that is running or restarting is never removed, one that is "
        "waiting or silent only with --force. Exit code 1 if the question is answered with no."
    )
    parser = verbs.add_parser("runs", help="list the runs below a folder, or remove some", description=about)
    parser.set_defaults(verb=runs)
    places = "folder that holds runs; or rm and the folders of runs (a folder called rm: ./rm)"
    parser.add_argument("folder", metavar="URL | rm RUN", nargs="+", help=places)
    parser.add_argument("--yes", action="store_true", help="rm: remove without a question")
    parser.add_argument("--dry-run", action="store_true", help="rm: say what would be removed, and remove nothing")
    may_run = "rm: also remove runs that are waiting or silent, which a process may still be training"
    parser.add_argument("--force", action="store_true", help=may_run)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of sentences")
    add_config_options(parser)
    add_store_options(parser)
    add_examples(parser, ["crossdim runs s3://lab/runs", "crossdim runs rm runs/first runs/second --yes"])
